// The player of a moment, the relevance strip under it, and the in and out points.
//
// data: {opening, video: {id, duration, fps}, source: {url, offset, state_url, note}, start, end,
//        caption, levels, moments: [{start, end, href, word}], sentences, frames}
//   opening   a new number opens the moment; while it stays the same, the player is left alone
//   levels    0..255, for intervals of equal length over the whole video
//   sentences {of: [start, end], start, end}: this cut, and the whole sentences around it; null: nothing is said
// Other components hear where it is by the event "scanonce-time" of the document, and move it by "scanonce-jump".
// Results: state "cut" {opening, start, end} in seconds, shortly after the in or out point came to rest; trigger "crop"
// {video, seconds, left, top, right, bottom}, a rectangle that was drawn on the paused picture, as shares of it.
// Names come from files: they are set as text, never as HTML.

const SETTLED_MS = 250;
const STRIP_HEIGHT = 56; // the times are below it on the canvas
const GRAB_PIXELS = 7;
const LEAST_CROP = 0.03; // share of the picture's width and height; less is a click
const TICKS = [0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// h:mm:ss, with this number of decimals
function clock(seconds, decimals = 1) {
  const scale = 10 ** decimals;
  const units = decimals ? Math.round(seconds * scale) : Math.floor(seconds + 1e-6);
  const two = (number) => String(number).padStart(2, "0");
  const whole = Math.floor(units / scale);
  const text = `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  return decimals ? `${text}.${String(units % scale).padStart(decimals, "0")}` : text;
}

class Player {
  constructor(root) {
    this.root = root;
    const find = (selector) => root.querySelector(selector);
    this.screen = find("video");
    this.canvas = find("canvas");
    this.note = find(".note");
    this.sheet = find(".draw");
    this.ends = { in: find('[data-end="in"]'), out: find('[data-end="out"]') };
    this.cut = { in: 0, out: 0 };
    this.view = { from: 0, to: 1 };
    this.stopAt = null; // time at which "play moment" stops
    this.timers = {};
    this.life = new AbortController();
    this.listen();
  }

  // ------------------------------------------------ data from Python

  update(component) {
    const before = this.data;
    this.data = component.data;
    this.setStateValue = component.setStateValue;
    this.setTriggerValue = component.setTriggerValue;
    const { video, source, opening } = this.data;
    if (before?.video.id !== video.id) this.view = { from: 0, to: Math.max(video.duration, 0.1) };
    if (before?.source.url !== source.url) this.load(source);
    if (before?.opening !== opening) this.open(this.data.start, this.data.end);
    this.root.querySelector(".caption").textContent = this.data.caption;
    this.canvas.setAttribute("aria-valuemax", video.duration.toFixed(1));
    this.root.querySelector(".snap").hidden = !this.data.sentences;
    if (this.isSnapping) this.snap();
    this.showOthers();
    this.draw();
  }

  load(source) {
    clearTimeout(this.timers.proxy);
    this.note.textContent = source.note ?? "";
    this.note.hidden = !source.note;
    if (source.state_url) this.waitForProxy(source);
    else this.screen.src = source.url;
  }

  async waitForProxy(source) {
    const stale = () => this.life.signal.aborted || this.data.source.url !== source.url;
    try {
      let answer = await fetch(source.url, { headers: { Range: "bytes=0-0" } }); // starts making it
      answer = await fetch(source.state_url);
      if (!answer.ok) throw new Error(await answer.text());
      const state = await answer.json();
      if (stale()) return;
      if (state.state === "failed") throw new Error(state.reason ?? "it could not be made");
      if (state.state === "ready") {
        this.note.textContent = source.note;
        this.screen.src = source.url;
        return;
      }
      this.note.textContent = `${source.note} Being made: ${Math.round(100 * state.progress)} %`;
      this.timers.proxy = setTimeout(() => this.waitForProxy(source), 700);
    } catch (error) {
      if (!stale()) this.note.textContent = `This video cannot be shown: ${error.message}`;
    }
  }

  open(start, end) {
    this.cut = { in: start, out: end };
    this.stopAt = end;
    this.isSnapping = false;
    this.showCut();
    this.seek(start);
    const { from, to } = this.view;
    if (start < from || end > to) this.look(start - (to - from) / 2, to - from);
  }

  // ------------------------------------------------ time

  get offset() {
    return this.data.source.offset ?? 0;
  }

  get now() {
    return this.wanted ?? clamp(this.screen.currentTime - this.offset, 0, this.data.video.duration);
  }

  seek(seconds) {
    const target = clamp(seconds, 0, this.data.video.duration);
    if (this.screen.readyState >= 1) {
      this.wanted = undefined;
      this.screen.currentTime = target + this.offset + 0.001; // just after the start of the frame, not before it
    } else {
      this.wanted = target; // "loadedmetadata" seeks there
    }
    this.draw();
  }

  jump(seconds) {
    if (seconds < this.cut.in - 0.01 || seconds >= this.cut.out) this.stopAt = null;
    this.seek(seconds);
  }

  playMoment() {
    this.stopAt = this.cut.out;
    this.seek(this.cut.in);
    this.play();
  }

  play() {
    this.screen.play().catch(() => {}); // no source yet, or a browser that asks for a click first
  }

  toggle() {
    if (this.screen.paused) this.play();
    else this.screen.pause();
  }

  get frame() {
    return 1 / (this.data.video.fps || 25);
  }

  stepFrames(count) {
    this.screen.pause();
    this.jump((Math.round(this.now / this.frame) + count) * this.frame);
  }

  everyFrame() {
    if (this.stopAt !== null && !this.screen.paused && this.now >= this.stopAt - 0.02) {
      this.screen.pause();
      this.stopAt = null;
    }
    const { from, to } = this.view;
    if (!this.screen.paused && (this.now > to || this.now < from)) this.look(this.now, to - from);
    this.draw();
    if (!this.screen.paused && !this.life.signal.aborted) requestAnimationFrame(() => this.everyFrame());
  }

  // ------------------------------------------------ in and out

  setEnd(which, seconds) {
    const { duration } = this.data.video;
    const length = Math.max(this.cut.out - this.cut.in, this.frame);
    const time = clamp(seconds, 0, duration);
    if (which === "in") {
      this.cut.in = Math.min(time, Math.max(0, duration - this.frame));
      if (this.cut.out < this.cut.in + this.frame / 2) this.cut.out = Math.min(duration, this.cut.in + length);
    } else {
      this.cut.out = Math.max(time, Math.min(this.frame, duration));
      if (this.cut.in > this.cut.out - this.frame / 2) this.cut.in = Math.max(0, this.cut.out - length);
    }
    this.isSnapping = false;
    this.keepCut();
  }

  keepCut() {
    if (this.stopAt !== null) this.stopAt = this.cut.out;
    this.showCut();
    this.settle();
  }

  // Widen the cut to whole sentences; if Python does not know the cut yet, when it answers.
  snap() {
    const { sentences } = this.data;
    if (!sentences) return;
    const [start, end] = sentences.of;
    this.isSnapping = Math.abs(start - this.cut.in) > 0.001 || Math.abs(end - this.cut.out) > 0.001;
    if (this.isSnapping) return;
    this.cut = { in: sentences.start, out: sentences.end };
    this.keepCut();
  }

  stepEnd(which, step) {
    const sign = step.startsWith("-") ? -1 : 1;
    const time = this.cut[which];
    const moved = step.endsWith("f") ? (Math.round(time / this.frame) + sign) * this.frame : time + sign;
    this.setEnd(which, moved);
    if (this.screen.paused) this.seek(which === "in" ? this.cut.in : this.lastFrame);
  }

  setHere(which) {
    // the shown frame is the last one of the cut
    this.setEnd(which, which === "in" ? this.now : (Math.floor(this.now / this.frame + 0.01) + 1) * this.frame);
  }

  get lastFrame() {
    return Math.max(this.cut.in, this.cut.out - this.frame);
  }

  settle() {
    clearTimeout(this.timers.settle);
    this.timers.settle = setTimeout(() => {
      const { opening } = this.data;
      this.setStateValue("cut", { opening, start: this.cut.in, end: this.cut.out });
    }, SETTLED_MS);
  }

  showCut() {
    this.ends.in.querySelector(".time").textContent = clock(this.cut.in, 2);
    this.ends.out.querySelector(".time").textContent = clock(this.cut.out, 2);
    this.root.querySelector(".length").textContent = `${(this.cut.out - this.cut.in).toFixed(2)} s`;
    clearTimeout(this.timers.frames);
    this.timers.frames = setTimeout(() => {
      this.showFrame(this.ends.in, this.cut.in);
      this.showFrame(this.ends.out, this.lastFrame);
    }, SETTLED_MS);
    this.showOthers();
    this.draw();
  }

  showFrame(end, seconds) {
    const image = end.querySelector("img");
    const address = `${this.data.frames}${Math.round(1000 * seconds) + 1}.jpg`;
    if (image.getAttribute("src") === address) return;
    image.classList.add("waiting");
    image.onload = image.onerror = () => image.classList.remove("waiting");
    image.src = address;
  }

  showOthers() {
    const line = this.root.querySelector(".others");
    const { moments } = this.data;
    line.hidden = moments.length === 0;
    line.firstElementChild.textContent = "Moments here:";
    const links = moments.map((moment) => {
      const link = linkTo(moment.href, clock(moment.start, 0), () => {
        this.open(moment.start, moment.end);
        this.settle();
      });
      link.title = `${clock(moment.start)} - ${clock(moment.end)}, ${moment.word}`;
      link.setAttribute("aria-label", `go to ${link.title}`);
      const current = Math.abs(moment.start - this.cut.in) < 0.01 && Math.abs(moment.end - this.cut.out) < 0.01;
      if (current) link.setAttribute("aria-current", "true");
      return link;
    });
    const focused = [...line.querySelectorAll("a")].indexOf(this.root.activeElement);
    line.replaceChildren(line.firstElementChild, ...links);
    if (focused >= 0) links[focused]?.focus();
  }

  // ------------------------------------------------ a part of the picture

  // Lay the sheet that is drawn on over the picture, without the bars beside it.
  draftCrop(isOn) {
    this.sheet.hidden = !isOn;
    this.root.querySelector(".crop").setAttribute("aria-pressed", String(isOn));
    this.sheet.firstElementChild.removeAttribute("style");
    if (!isOn) return;
    this.screen.pause();
    const { clientWidth, clientHeight, videoWidth, videoHeight, offsetLeft, offsetTop } = this.screen;
    const scale = Math.min(clientWidth / (videoWidth || 16), clientHeight / (videoHeight || 9));
    const [width, height] = [(videoWidth || 16) * scale, (videoHeight || 9) * scale];
    const place = { width, height, left: offsetLeft + (clientWidth - width) / 2, top: offsetTop + (clientHeight - height) / 2 };
    for (const [name, value] of Object.entries(place)) this.sheet.style[name] = `${value}px`;
  }

  listenToSheet(on) {
    let from = null;
    const at = (event) => {
      const box = this.sheet.getBoundingClientRect();
      return [clamp((event.clientX - box.left) / box.width, 0, 1), clamp((event.clientY - box.top) / box.height, 0, 1)];
    };
    const between = ([x, y]) => [Math.min(x, from[0]), Math.min(y, from[1]), Math.max(x, from[0]), Math.max(y, from[1])];
    on(this.sheet, "pointerdown", (event) => {
      this.sheet.setPointerCapture(event.pointerId);
      from = at(event);
    });
    on(this.sheet, "pointermove", (event) => {
      if (!from) return;
      const [left, top, right, bottom] = between(at(event)).map((share) => 100 * share);
      this.sheet.firstElementChild.style.inset = `${top}% ${100 - right}% ${100 - bottom}% ${left}%`;
    });
    on(this.sheet, "pointercancel", () => (from = null));
    on(this.sheet, "pointerup", (event) => {
      if (!from) return;
      const [left, top, right, bottom] = between(at(event));
      from = null;
      if (right - left < LEAST_CROP || bottom - top < LEAST_CROP) return;
      this.setTriggerValue("crop", { video: this.data.video.id, seconds: this.now, left, top, right, bottom });
      this.draftCrop(false);
    });
  }

  // ------------------------------------------------ the strip

  look(from, length) {
    const { duration } = this.data.video;
    const shown = clamp(length, Math.min(duration, 2), Math.max(duration, 0.1));
    const start = clamp(from, 0, Math.max(0, duration - shown));
    this.view = { from: start, to: start + shown };
    this.draw();
  }

  zoom(factor, around) {
    const { from, to } = this.view;
    const length = clamp((to - from) * factor, Math.min(this.data.video.duration, 2), this.data.video.duration);
    this.look(around - ((around - from) / (to - from)) * length, length);
  }

  timeAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const share = clamp((event.clientX - box.left) / box.width, 0, 1);
    return this.view.from + share * (this.view.to - this.view.from);
  }

  handleAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = box.width / (this.view.to - this.view.from);
    const distances = ["in", "out"].map((which) => {
      const x = box.left + (this.cut[which] - this.view.from) * scale;
      return [Math.abs(event.clientX - x), which];
    });
    const [distance, which] = distances.sort((a, b) => a[0] - b[0])[0];
    // only the upper part of a line is its handle: a click below it jumps
    return distance <= GRAB_PIXELS && event.clientY - box.top <= 16 ? which : null;
  }

  draw() {
    if (!this.data || this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = null;
      this.paint();
    });
  }

  paint() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width) return;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(`--st-${name}`).trim();
    const [accent, ink, ground] = ["primary-color", "text-color", "secondary-background-color"].map(colour);
    const pen = this.canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const { from, to } = this.view;
    const x = (seconds) => ((seconds - from) / (to - from)) * width;
    pen.fillStyle = ground;
    pen.fillRect(0, 0, width, STRIP_HEIGHT);
    this.paintMoments(pen, x, accent);
    this.paintLevels(pen, width, ratio, accent);
    this.paintTimes(pen, x, width, ink, style.fontFamily);
    this.paintCut(pen, x, width, ink);
    const head = x(this.now);
    pen.fillStyle = ink;
    pen.fillRect(head - 1, 0, 2, STRIP_HEIGHT);
    pen.beginPath();
    pen.moveTo(head - 5, STRIP_HEIGHT + 6);
    pen.lineTo(head + 5, STRIP_HEIGHT + 6);
    pen.lineTo(head, STRIP_HEIGHT);
    pen.fill();
    this.root.querySelector(".now").textContent = clock(this.now, 2);
    this.canvas.setAttribute("aria-valuenow", this.now.toFixed(1));
    this.canvas.setAttribute("aria-valuetext", clock(this.now));
    this.tellTime();
  }

  tellTime() {
    document.dispatchEvent(new CustomEvent("scanonce-time", { detail: { seconds: this.now } }));
  }

  paintMoments(pen, x, accent) {
    pen.fillStyle = accent;
    for (const { start, end } of this.data.moments) {
      const width = Math.max(x(end) - x(start), 2);
      pen.globalAlpha = 0.16;
      pen.fillRect(x(start), 0, width, STRIP_HEIGHT);
      pen.globalAlpha = 1;
      pen.fillRect(x(start), STRIP_HEIGHT - 3, width, 3);
    }
  }

  paintLevels(pen, width, ratio, accent) {
    const { levels, video } = this.data;
    if (!levels.length) return;
    const perSecond = levels.length / video.duration;
    const { from, to } = this.view;
    const columns = Math.round(width * ratio);
    pen.fillStyle = accent;
    for (let column = 0; column < columns; column += 1) {
      const first = Math.floor((from + (column / columns) * (to - from)) * perSecond);
      const end = Math.max(first + 1, Math.floor((from + ((column + 1) / columns) * (to - from)) * perSecond));
      let [sum, count] = [0, 0];
      for (let k = first; k < Math.min(end, levels.length); k += 1) [sum, count] = [sum + levels[k], count + 1];
      const level = count ? sum / count / 255 : 0;
      pen.globalAlpha = 0.25 + 0.75 * level;
      const height = 2 + level * (STRIP_HEIGHT - 16);
      pen.fillRect(column / ratio, STRIP_HEIGHT - 3 - height, 1 / ratio, height);
    }
    pen.globalAlpha = 1;
  }

  paintTimes(pen, x, width, ink, font) {
    const { from, to } = this.view;
    const step = TICKS.find((each) => ((to - from) / each) * 84 <= width) ?? TICKS.at(-1);
    pen.fillStyle = ink;
    pen.font = `11px ${font}`;
    pen.textBaseline = "top";
    for (let tick = Math.ceil(from / step); tick * step <= to; tick += 1) {
      const left = x(tick * step);
      const text = clock(tick * step, step < 1 ? 1 : 0);
      const half = pen.measureText(text).width / 2;
      pen.globalAlpha = 0.35;
      pen.fillRect(left, STRIP_HEIGHT, 1, 4);
      pen.globalAlpha = 0.75;
      pen.textAlign = "center";
      pen.fillText(text, clamp(left, half, width - half), STRIP_HEIGHT + 7);
    }
    pen.globalAlpha = 1;
  }

  paintCut(pen, x, width, ink) {
    const [start, end] = [x(this.cut.in), x(this.cut.out)];
    pen.fillStyle = ink;
    pen.globalAlpha = 0.1;
    pen.fillRect(0, 0, clamp(start, 0, width), STRIP_HEIGHT);
    pen.fillRect(clamp(end, 0, width), 0, width, STRIP_HEIGHT);
    pen.globalAlpha = 0.9;
    for (const [edge, towards] of [[start, 1], [end, -1]]) {
      pen.fillRect(edge - 0.75, 0, 1.5, STRIP_HEIGHT);
      pen.fillRect(towards > 0 ? edge : edge - 7, 0, 7, 12);
    }
    pen.globalAlpha = 1;
  }

  // ------------------------------------------------ input

  listen() {
    const { signal } = this.life;
    const on = (target, type, handle, more = {}) => target.addEventListener(type, handle, { signal, ...more });
    on(this.screen, "loadedmetadata", () => this.seek(this.wanted ?? this.cut.in));
    on(this.screen, "play", () => this.everyFrame());
    on(this.screen, "timeupdate", () => this.draw());
    on(this.screen, "seeked", () => this.draw());
    on(this.screen, "error", () => {
      this.note.hidden = false;
      this.note.textContent = "This video cannot be played here. Is its file still in place? Reload the page to try again.";
    });
    for (const which of ["in", "out"]) {
      for (const button of this.ends[which].querySelectorAll("[data-step]")) {
        on(button, "click", () => this.stepEnd(which, button.dataset.step));
      }
      on(this.ends[which].querySelector(".here"), "click", () => this.setHere(which));
    }
    on(this.root.querySelector(".play-moment"), "click", () => this.playMoment());
    on(this.root.querySelector(".snap"), "click", () => this.snap());
    on(this.root.querySelector(".crop"), "click", () => this.draftCrop(this.sheet.hidden));
    on(this.screen, "play", () => this.draftCrop(false));
    this.listenToSheet(on);
    on(document, "scanonce-jump", ({ detail }) => this.jump(detail.seconds));
    on(document, "scanonce-where", () => this.data && this.tellTime());
    for (const button of this.root.querySelectorAll("[data-zoom]")) {
      on(button, "click", () => {
        const { from, to } = this.view;
        const around = this.now >= from && this.now <= to ? this.now : (from + to) / 2;
        if (button.dataset.zoom === "all") this.look(0, this.data.video.duration);
        else this.zoom(Number(button.dataset.zoom), around);
      });
    }
    this.listenToStrip(on);
    on(document, "keydown", (event) => this.key(event), { capture: true });
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.canvas);
  }

  listenToStrip(on) {
    let dragged = null;
    on(this.canvas, "pointerdown", (event) => {
      if (event.button !== 0) return;
      this.canvas.setPointerCapture(event.pointerId);
      dragged = this.handleAt(event) ?? "head";
      if (dragged === "head") this.jump(this.timeAt(event));
    });
    on(this.canvas, "pointermove", (event) => {
      if (dragged === null) {
        this.canvas.style.cursor = this.handleAt(event) ? "ew-resize" : "pointer";
      } else if (dragged === "head") {
        this.jump(this.timeAt(event));
      } else {
        this.setEnd(dragged, Math.round(this.timeAt(event) / this.frame) * this.frame);
        this.seek(dragged === "in" ? this.cut.in : this.lastFrame);
      }
    });
    for (const type of ["pointerup", "pointercancel"]) on(this.canvas, type, () => (dragged = null));
    on(
      this.canvas,
      "wheel",
      (event) => {
        const { from, to } = this.view;
        const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
        if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
          this.look(from + (sideways / this.canvas.clientWidth) * (to - from), to - from);
        } else {
          this.zoom(1.0015 ** clamp(event.deltaY, -400, 400), this.timeAt(event));
        }
        event.preventDefault();
      },
      { passive: false },
    );
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.composedPath()[0];
    const tag = target.tagName ?? "";
    if (/^(INPUT|TEXTAREA|SELECT)$/.test(tag) || target.isContentEditable) return;
    if (event.key === " " && /^(BUTTON|A|SUMMARY)$/.test(tag)) return;
    // arrow keys go to the list or menu that has the focus
    const ours = this.root.contains(target) || tag === "BODY" || tag === "HTML";
    const arrow = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === " ") this.toggle();
    else if (event.key === "i") this.setHere("in");
    else if (event.key === "o") this.setHere("out");
    else if (event.key === "s") this.snap();
    else if (event.key === "Escape" && !this.sheet.hidden) this.draftCrop(false);
    else if (arrow && ours && event.shiftKey) this.jump(this.now + arrow);
    else if (arrow && ours) this.stepFrames(arrow);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  close() {
    this.life.abort();
    this.resized.disconnect();
    Object.values(this.timers).forEach(clearTimeout);
    this.screen.removeAttribute("src");
    this.screen.load(); // closes the connection
  }
}

export default function (component) {
  const { parentElement } = component;
  const player = (parentElement.player ??= new Player(parentElement));
  player.update(component);
  return () => {
    player.close();
    if (parentElement.player === player) delete parentElement.player;
  };
}
