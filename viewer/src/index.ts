/** What a page sees as `gsth`: mount() for an avatar, controls() for buttons, and the parts for pages of their own. */

import { Player } from "./player";

export { AvatarFile } from "./format";
export { logMel, RATE } from "./logmel";
export { Player, type Options } from "./player";
export { Rig } from "./rig";
export { Live, Recording, Resampler } from "./speech";
export { Track } from "./track";
export { Tuner } from "./tuner";
export { controls } from "./ui";
export { voiceOf } from "./voice";

export const mount = Player.mount;
