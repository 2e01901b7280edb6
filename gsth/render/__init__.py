"""Rendering: Splats and Cameras in, Rendered out.

A backend is a file in this room with ``unavailable(device) -> str | None`` (why it cannot run there) and
``render(splats, cameras, background) -> Rendered``; all must agree with ``torch_ref``, the definition.
"""
