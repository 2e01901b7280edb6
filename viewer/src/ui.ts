/** The page's controls over the picture; a page of its own design leaves them out. */

import type { Player } from "./player";

const STYLE = `
:host { position: absolute; inset: 0; pointer-events: none; font: 14px system-ui, sans-serif; color: #fff; }
nav { position: absolute; bottom: 12px; left: 50%; transform: translateX(-50%); display: flex; gap: 6px;
  flex-wrap: wrap; justify-content: center; width: max-content; max-width: 94%; }
button, label { pointer-events: auto; border: 0; border-radius: 8px; padding: 9px 13px; background: #20242ccc; color: #fff;
  font: inherit; cursor: pointer; }
button:hover, label:hover, button:focus-visible { background: #3d6fb8; }
button[hidden] { display: none; }
input { display: none; }
pre { position: absolute; top: 8px; left: 8px; margin: 0; padding: 8px; border-radius: 8px; background: #20242ccc; }
[role=alert] { position: absolute; top: 8px; left: 50%; transform: translateX(-50%); padding: 9px 13px; border-radius: 8px;
  background: #a33c; pointer-events: auto; }
[role=alert]:empty { display: none; }`;

/** Put the controls over a player; `demo` is a sound that a button speaks. */
export function controls(player: Player, demo?: string | ArrayBuffer): HTMLElement {
  const host = document.createElement("div");
  const root = host.attachShadow({ mode: "open" });
  const style = document.createElement("style");
  style.textContent = STYLE;
  const bar = document.createElement("nav");
  const alert = Object.assign(document.createElement("div"), { role: "alert" });
  const stats = Object.assign(document.createElement("pre"), { hidden: true });
  root.append(style, stats, alert, bar);
  const attempt = (work: () => Promise<void> | void) => async () => {
    alert.textContent = "";
    try {
      await work();
    } catch (error) {
      player.fail(error);
    }
  };
  const button = (text: string, work: () => Promise<void> | void): HTMLButtonElement => {
    const made = document.createElement("button");
    made.textContent = text;
    made.addEventListener("click", () => void attempt(work)());
    bar.append(made);
    return made;
  };
  if (demo) button("Speak", () => player.speak(typeof demo === "string" ? demo : demo.slice(0)));
  bar.append(filePicker(async (file) => attempt(() => player.speak(file))()));
  const mic = button("Microphone", () => (player.speaking ? player.stop() : player.listen()));
  const track = button("Play film", () => (player.inTrack ? player.rest() : player.play()));
  button("Front", () => player.resetView());
  button("Stats", () => void (stats.hidden = !stats.hidden));
  const vr = button("Enter VR", () => player.headset.enter("immersive-vr"));
  const ar = button("Enter AR", () => player.headset.enter("immersive-ar"));
  vr.hidden = ar.hidden = true;
  void player.headset.can("immersive-vr").then((can) => (vr.hidden = !can));
  void player.headset.can("immersive-ar").then((can) => (ar.hidden = !can));
  player.addEventListener("error", (event) => (alert.textContent = (event as ErrorEvent).message));
  const timer = setInterval(() => {
    if (!host.isConnected) return clearInterval(timer);
    mic.textContent = player.speaking ? "Be silent" : "Microphone";
    track.textContent = player.inTrack ? "Stop film" : "Play film";
    if (!stats.hidden) stats.textContent = statsText(player);
  }, 250);
  player.element.append(host);
  return host;
}

function statsText({ stats }: Player): string {
  return [
    `${stats.fps.toFixed(0)} frames/s, level ${stats.level}`,
    `${stats.drawn} of ${stats.splats} splats`,
    `rig ${stats.rigMs.toFixed(2)} ms (${stats.simd ? "SIMD" : "plain"}), sort ${stats.sortMs.toFixed(2)} ms`,
  ].join("\n");
}

function filePicker(chosen: (file: File) => void): HTMLElement {
  const label = document.createElement("label");
  label.textContent = "Speak a file";
  const input = Object.assign(document.createElement("input"), { type: "file", accept: "audio/*,video/*" });
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file) chosen(file);
    input.value = "";
  });
  label.append(input);
  return label;
}
