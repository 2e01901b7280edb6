// What the viewer's page does itself: pictures, sound in step with them, microphone, files, shortcuts, address, and the
// browser's own drawing. It talks with gsth.serve._link; messages: gsth/serve/protocol.py.
(() => {
  "use strict";
  const SYNC_S = 0.06; // sound that is off by more is sped up or slowed down until it fits
  const CATCH_UP = 0.1; // by so much: heard no wrong, as browsers keep the pitch
  const JUMP_S = 0.35; // and wound to its place where it is off by more than this
  const SETTLED_MS = 300; // after which a sound that was started or wound runs evenly
  const MOST_LEAD_S = 0.3; // less than JUMP_S, or winding ahead would itself look like being off
  const KEYS = {
    " ": ["play", "play or pause"],
    ",": ["back", "a frame back"],
    ".": ["forward", "a frame on"],
    "[": ["slower", "slower"],
    "]": ["faster", "faster"],
    h: ["home", "the training camera's view"],
    v: ["mode", "next kind of picture"],
    x: ["reset", "all controls back"],
    p: ["still", "save a picture"],
    r: ["record", "start or end a recording"],
    t: ["theme", "dark or light"],
  };

  let line = null;
  let visitor = null;
  let epoch = null;
  let clock = null; // the newest word on where the motion is
  let heardAt = 0;
  let soundId = null;
  let lead = 0.05; // s that this browser takes to start a sound, as learned
  let woundAt = null; // when the sound was last started or wound, until it is known how well that fitted
  const audio = new Audio();
  audio.preload = "auto";

  // ---------------------------------------------------------------------------------------------- line

  function connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    line = new WebSocket(`${scheme}://${location.host}/gsth/line`);
    line.binaryType = "arraybuffer";
    line.onopen = () => hello();
    line.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : see(data));
    line.onclose = () => {
      status("connection lost, trying again");
      audio.pause();
      setTimeout(connect, 1000);
    };
  }

  function say(message) {
    if (line !== null && line.readyState === WebSocket.OPEN) line.send(JSON.stringify(message));
  }

  function hello() {
    status("");
    const mark = document.querySelector("[data-gsth-visitor]");
    if (mark === null || line === null || line.readyState !== WebSocket.OPEN) return;
    visitor = Number(mark.getAttribute("data-gsth-visitor"));
    const dark = !window.matchMedia("(prefers-color-scheme: light)").matches;
    say({ do: "hello", visitor, state: window.gsthAsked ?? "", dark });
    window.gsthAsked = ""; // put on once; from then on the server says what the address holds
  }

  function hear(message) {
    if (message.t === "welcome") {
      // Another server at the same address: what this page shows is not its state.
      if (epoch !== null && epoch !== message.epoch) return location.reload();
      epoch = message.epoch;
    } else if (message.t === "clock") {
      clock = message;
      heardAt = performance.now();
      keepTime();
      playButton.textContent = clock.playing ? "❚❚" : "►";
    } else if (message.t === "state") {
      history.replaceState(null, "", message.state ? `#${message.state}` : location.pathname + location.search);
    } else if (message.t === "ask") {
      ask(message.purpose, message.accept);
    } else if (message.t === "player") {
      showPlayer(message.src, message.sound);
    } else if (message.t === "face") {
      if (player() !== null) for (const [name, value] of Object.entries(message.face)) player().setExpression(name, value);
    } else if (message.t === "recording") {
      recordButton.classList.toggle("on", message.on);
    } else if (message.t === "taken") {
      status("");
    } else if (message.t === "wrong") {
      status(message.text, 8000);
    }
  }

  // ---------------------------------------------------------------------------------------------- pictures

  // They lie behind viser's canvas, which stays empty: as a texture in its scene each would be uploaded, flipped, given
  // mip levels and drawn several times, at several times the cost where there is no GPU.
  const picture = document.createElement("canvas");
  picture.id = "gsth-picture";
  const paint = picture.getContext("bitmaprenderer", { alpha: false }); // nothing behind it needs to be drawn
  let come = 0;
  let shown = 0;

  function place() {
    if (!picture.isConnected) document.querySelector("canvas[data-engine]")?.before(picture);
  }

  async function see(data) {
    const number = ++come;
    try {
      const bitmap = await createImageBitmap(new Blob([data], { type: "image/jpeg" }));
      if (number > shown) {
        shown = number;
        place();
        if (picture.width !== bitmap.width) picture.width = bitmap.width; // or CSS takes it for 300 x 150
        if (picture.height !== bitmap.height) picture.height = bitmap.height;
        paint.transferFromImageBitmap(bitmap);
      }
    } finally {
      say({ do: "shown" });
    }
  }

  // ---------------------------------------------------------------------------------------------- sound

  function expected() {
    const passed = clock.playing ? ((performance.now() - heardAt) / 1000) * clock.speed : 0;
    const at = clock.position + passed;
    return clock.loop ? at % clock.duration : at;
  }

  async function keepTime() {
    if (clock === null || player() !== null) return audio.pause();
    if (clock.sound !== soundId) {
      const wanted = (soundId = clock.sound);
      audio.pause();
      if (audio.src) URL.revokeObjectURL(audio.src);
      audio.removeAttribute("src");
      if (wanted !== null) {
        // A blob can be wound to any place at once.
        const blob = await (await fetch(`/gsth/sound/${wanted}.wav`)).blob();
        if (wanted !== soundId) return; // another sound was put on while this one came
        audio.src = URL.createObjectURL(blob);
      }
    }
    if (soundId === null || !audio.src) return;
    const at = expected();
    if (!clock.playing || at >= audio.duration) return audio.pause();
    const late = at - audio.currentTime;
    if (Math.abs(late) > JUMP_S || audio.paused) {
      audio.currentTime = Math.max(0, at + lead * clock.speed);
      woundAt = performance.now();
    } else if (woundAt !== null && performance.now() - woundAt > SETTLED_MS) {
      // Half of what was missed: one start may be slower than others.
      lead = Math.min(Math.max(0, lead + late / clock.speed / 2), MOST_LEAD_S);
      woundAt = null;
    }
    audio.playbackRate = clock.speed * (Math.abs(late) < SYNC_S ? 1 : late > 0 ? 1 + CATCH_UP : 1 - CATCH_UP);
    if (audio.paused) {
      try {
        await audio.play();
        soundButton.hidden = true;
      } catch {
        soundButton.hidden = false; // browsers want a touch before they let a page sound
      }
    }
  }
  setInterval(keepTime, 200);

  // ---------------------------------------------------------------------------------------------- files and microphone

  function give(blob, name, purpose) {
    if (line === null || line.readyState !== WebSocket.OPEN) return;
    say({ do: "file", name, size: blob.size, purpose });
    blob.arrayBuffer().then((bytes) => line.send(bytes));
    status(`working on ${name}`); // until it is taken, or something is wrong with it
  }

  function ask(purpose, accept) {
    const input = document.createElement("input");
    input.type = "file";
    input.accept = accept;
    input.dataset.gsthFile = purpose;
    input.hidden = true;
    input.onchange = () => {
      if (input.files.length > 0) give(input.files[0], input.files[0].name, purpose);
      input.remove();
    };
    document.querySelectorAll("input[data-gsth-file]").forEach((old) => old.remove());
    document.body.append(input);
    input.click();
  }

  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    for (const file of event.dataTransfer.files) give(file, file.name, "");
  });

  let recorder = null;
  async function talk(on) {
    if (!on) {
      if (recorder !== null && recorder.state === "recording") recorder.stop();
      talkButton.classList.remove("on");
      return;
    }
    const stream = await microphone();
    if (stream === null) return;
    const pieces = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = () => {
      stream.getTracks().forEach((track) => track.stop());
      const kind = recorder.mimeType.includes("mp4") ? "m4a" : recorder.mimeType.includes("ogg") ? "ogg" : "webm";
      give(new Blob(pieces), `talk.${kind}`, "speech");
    };
    recorder.start();
    talkButton.classList.add("on");
  }

  async function microphone() {
    if (!navigator.mediaDevices) {
      status("browsers give the microphone to pages from localhost or https only", 8000);
      return null;
    }
    try {
      return await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      status(`no microphone: ${error.message}`, 8000);
      return null;
    }
  }

  const CATCHER = `registerProcessor("catcher", class extends AudioWorkletProcessor {
    constructor() { super(); this.held = new Int16Array(1600); this.count = 0; }
    process(inputs) {
      const sound = inputs[0][0];
      if (sound) for (const value of sound) {
        this.held[this.count++] = Math.max(-1, Math.min(1, value)) * 32767;
        if (this.count === this.held.length) { this.port.postMessage(this.held.slice().buffer); this.count = 0; }
      }
      return true;
    }
  })`;
  let listening = null;
  async function listen() {
    if (listening !== null) {
      listening.stream.getTracks().forEach((track) => track.stop());
      listening.context.close();
      listening = null;
      say({ do: "hush" });
      return liveButton.classList.remove("on");
    }
    const stream = await microphone();
    if (stream === null) return;
    const context = new AudioContext({ sampleRate: 16000 });
    const code = URL.createObjectURL(new Blob([CATCHER], { type: "text/javascript" }));
    await context.audioWorklet.addModule(code);
    const catcher = new AudioWorkletNode(context, "catcher");
    catcher.port.onmessage = (event) => line.readyState === WebSocket.OPEN && line.send(event.data);
    context.createMediaStreamSource(stream).connect(catcher);
    listening = { stream, context };
    say({ do: "listen", rate: context.sampleRate });
    liveButton.classList.add("on");
  }

  // ---------------------------------------------------------------------------------------------- drawing here

  let frame = null;
  function player() {
    return frame?.contentWindow?.player ?? null;
  }
  function showPlayer(src, sound) {
    if (frame !== null) {
      frame.remove();
      frame = null;
      bar.classList.remove("above");
      say({ do: "player", on: false });
      return;
    }
    frame = document.createElement("iframe");
    frame.id = "gsth-player";
    frame.allow = "microphone; xr-spatial-tracking; autoplay";
    frame.src = src;
    document.body.append(frame);
    bar.classList.add("above"); // the player has buttons of its own at the bottom
    say({ do: "player", on: true });
  }

  // ---------------------------------------------------------------------------------------------- controls on the page

  const style = document.createElement("style");
  style.textContent = `
    /* A picture for a page of another width is cut, not squeezed, until the next one comes. */
    #gsth-picture { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; z-index: -1;
      pointer-events: none; }
    #webgl-software-rendering { display: none; } /* viser's warning of slow drawing, which is not what draws here */
    canvas[data-engine] { visibility: hidden; } /* nothing of ours is in its scene; what lies round it takes the pointer */
    #gsth-bar { position: fixed; left: 8px; bottom: 8px; z-index: 30; display: flex; gap: 6px; align-items: center;
      font: 15px system-ui, sans-serif; touch-action: manipulation; }
    #gsth-bar.above { bottom: 64px; }
    #gsth-bar button { min-width: 40px; height: 40px; border: 0; border-radius: 8px; background: #0009; color: #fff;
      cursor: pointer; padding: 0 10px; font: inherit; }
    #gsth-bar button:focus-visible { outline: 2px solid #6cf; }
    #gsth-bar button.on { background: #c22; }
    #gsth-status { color: #fff; background: #000a; border-radius: 8px; padding: 4px 10px; max-width: 50vw; }
    #gsth-status:empty { display: none; }
    #gsth-help { position: fixed; inset: 0; z-index: 40; display: flex; align-items: center; justify-content: center;
      background: #0008; border: 0; }
    #gsth-help[hidden] { display: none; }
    #gsth-help table { background: #1a1b1e; color: #eee; border-radius: 12px; padding: 16px 24px;
      font: 15px system-ui, sans-serif; border-spacing: 14px 5px; }
    #gsth-help kbd { background: #333; border-radius: 4px; padding: 1px 8px; }
    #gsth-player { position: fixed; inset: 0 auto auto 0; width: calc(100vw - 22em); height: 100vh; border: 0;
      z-index: 20; background: #222; }
    @media (max-width: 36em) { /* where viser turns its panel into a sheet at the bottom: picture above, sheet below */
      body #root { height: 55%; } /* whichever style comes last */
      #root .mantine-Paper-root[style*="max-height: 60%"] { width: 100% !important; max-height: 45% !important; }
      #root .mantine-Paper-root[style*="max-height: 60%"] div[style*="width: 20em"] { width: 100% !important; }
      #gsth-bar { bottom: calc(45% + 8px); }
      #gsth-bar.above { bottom: calc(45% + 64px); }
      #gsth-player { width: 100vw; height: 55%; }
      #gsth-status { max-width: 90vw; }
    }`;
  document.head.append(style);

  function button(text, title, click) {
    const made = document.createElement("button");
    made.textContent = text;
    made.title = title;
    made.setAttribute("aria-label", title);
    if (click) made.onclick = click;
    bar.append(made);
    return made;
  }
  const bar = document.createElement("div");
  bar.id = "gsth-bar";
  const playButton = button("►", "Play or pause (space)", () => say({ do: "key", name: "play" }));
  const talkButton = button("Talk", "Hold to speak; the avatar says it (M)");
  talkButton.onpointerdown = () => talk(true);
  talkButton.onpointerup = talkButton.onpointerleave = () => talk(false);
  const liveButton = button("Live", "The avatar's mouth follows the microphone", listen);
  const recordButton = button("●", "Start or end a recording (R)", () => say({ do: "key", name: "record" }));
  const soundButton = button("Sound on", "Browsers want a touch before they play sound", keepTime);
  soundButton.hidden = true;
  button("?", "Shortcuts (?)", () => (help.hidden = !help.hidden));
  const note = document.createElement("span");
  note.id = "gsth-status";
  note.setAttribute("role", "status");
  bar.append(note);

  let quiet = 0;
  function status(text, ms) {
    note.textContent = text;
    clearTimeout(quiet);
    if (ms) quiet = setTimeout(() => (note.textContent = ""), ms);
  }

  const help = document.createElement("div");
  help.id = "gsth-help";
  help.hidden = true;
  const rows = Object.entries(KEYS).map(([key, [, what]]) => [key === " " ? "space" : key, what]);
  rows.push(["m", "hold to speak"], ["wheel on a slider", "fine steps"], ["drag", "go round"]);
  rows.push(["right drag, two fingers", "shift"], ["drop a file", "sound, video, motion or background"], ["?", "this"]);
  const table = document.createElement("table");
  for (const [key, what] of rows) {
    const row = table.insertRow();
    const cell = row.insertCell();
    cell.append(Object.assign(document.createElement("kbd"), { textContent: key }));
    row.insertCell().textContent = what;
  }
  help.append(table);
  help.onclick = () => (help.hidden = true);

  function typing(target) {
    return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === " " && event.target instanceof Element && event.target.closest("button")) return;
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "m" && !event.repeat) talk(true);
    else if (key === "?") help.hidden = !help.hidden;
    else if (key === "Escape") help.hidden = true;
    else if (key in KEYS) say({ do: "key", name: KEYS[key][0] });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
  document.addEventListener("keyup", (event) => event.key.toLowerCase() === "m" && talk(false));

  document.addEventListener("wheel", (event) => {
    const thumb = event.target instanceof Element && event.target.closest(".mantine-Slider-root")?.querySelector("[role=slider]");
    if (!thumb) return;
    event.preventDefault();
    thumb.dispatchEvent(new KeyboardEvent("keydown", { key: event.deltaY < 0 ? "ArrowRight" : "ArrowLeft", bubbles: true }));
  }, { passive: false, capture: true });

  // ---------------------------------------------------------------------------------------------- beginning

  document.body.append(bar, help);
  new MutationObserver(() => {
    place(); // viser's canvas may come after the first picture
    const mark = document.querySelector("[data-gsth-visitor]");
    if (mark !== null && Number(mark.getAttribute("data-gsth-visitor")) !== visitor) hello();
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-gsth-visitor", "data-engine"] });
  connect();
  window.gsthPage = { get sound() { return audio; }, get clock() { return clock; }, get lead() { return lead; }, expected };
})();
