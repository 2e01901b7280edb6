"""The live viewer: an avatar in a browser page, from any side.

``session`` turns avatar, clock and controls into pictures and knows no sockets; ``app`` puts it on a page.
"""
