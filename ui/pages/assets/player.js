// The player of a moment, the relevance strip under it, and the in and out points.
//
// data: {opening, video: {id, duration, fps}, source: {url, offset, state_url, note}, start, end, caption, levels, line,
//        moments: [{start, end, href, word}], sentences, frames, clips, longest, seen}
//   opening   a new number opens the moment; while it stays the same, the player is left alone
//   levels    0..255: probabilities of 0 to 1, for intervals of equal length over the whole video
//   line      the level from which on a match is good; null: it is not known
//   clips     address of the folder of the clips; longest: most seconds of one
//   sentences {of: [start, end], start, end}: this cut, and the whole sentences around it; null: nothing is said
// Other components hear where it is by the event "scanonce-time" of the document, and move it by "scanonce-jump".
// Results: state "cut" {opening, start, end} in seconds, shortly after the in or out point came to rest; trigger "crop"
// {video, seconds, left, top, right, bottom}, a rectangle that was drawn on the paused picture, as shares of it; state
// "acts" ({video, start, end}: picked as trimmed; see `Acts`). The address of the page follows the cut.
// Names come from files: they are set as text, never as HTML.

const SETTLED_MS = 250;
const GRAB_PIXELS = 7;
const LEAST_CROP = 0.03; // share of the picture's width and height; less is a click

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
    this.acts = new Acts();
    this.speed = 0; // of the shuttle: below 0 backwards
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
    this.acts.acknowledge(this.data.seen);
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
    else this.pause();
  }

  pause() {
    this.speed = 0;
    this.screen.playbackRate = 1;
    this.screen.pause();
  }

  // The keys j and l: each press of one is twice as fast, and one of the other turns round.
  shuttle(direction) {
    const turned = Math.sign(this.speed || (this.screen.paused ? 0 : 1)) !== direction;
    this.speed = turned ? direction : clamp((this.speed || direction) * 2, -8, 8);
    this.stopAt = null;
    if (direction > 0) {
      this.screen.playbackRate = this.speed;
      this.play();
      return;
    }
    this.screen.pause();
    let before = performance.now();
    const back = (time) => {
      if (this.speed >= 0 || this.life.signal.aborted) return;
      if (!this.screen.seeking) {
        this.seek(this.now + (this.speed * (time - before)) / 1000);
        before = time;
      }
      if (this.now > 0) requestAnimationFrame(back);
      else this.speed = 0;
    };
    requestAnimationFrame(back);
  }

  get fps() {
    return this.data.video.fps || 25;
  }

  get frame() {
    return 1 / this.fps;
  }

  stepFrames(count) {
    this.pause();
    this.jump((frameAt(this.now, this.fps) + count) * this.frame);
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

  pick() {
    this.acts.add({ video: this.data.video.id, start: this.cut.in, end: this.cut.out }, this.setStateValue);
    const said = this.root.querySelector(".said");
    said.textContent = "picked";
    clearTimeout(this.timers.said);
    this.timers.said = setTimeout(() => (said.textContent = ""), 2000);
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
    // the shown frame is the first or the last one of the cut
    this.setEnd(which, (frameAt(this.now, this.fps) + (which === "in" ? 0 : 1)) * this.frame);
  }

  get lastFrame() {
    return Math.max(this.cut.in, this.cut.out - this.frame);
  }

  settle() {
    clearTimeout(this.timers.settle);
    this.timers.settle = setTimeout(() => {
      const { opening } = this.data;
      const address = new URL(location.href);
      address.searchParams.set("a", this.cut.in.toFixed(3));
      address.searchParams.set("b", this.cut.out.toFixed(3));
      history.replaceState(history.state, "", address); // Python takes it for the same opened moment
      this.setStateValue("cut", { opening, start: this.cut.in, end: this.cut.out });
    }, SETTLED_MS);
  }

  showCut() {
    this.ends.in.querySelector(".time").textContent = timecode(this.cut.in, this.fps);
    this.ends.out.querySelector(".time").textContent = timecode(this.cut.out, this.fps);
    const clip = this.root.querySelector(".clip");
    const isTooLong = this.cut.out - this.cut.in > this.data.longest;
    clip.title = isTooLong ? `A clip has at most ${Math.round(this.data.longest / 60)} minutes` : "";
    const [start, end] = [this.cut.in, this.cut.out].map((each) => Math.round(1000 * each));
    if (isTooLong) clip.removeAttribute("href");
    else clip.setAttribute("href", `${this.data.clips}${start}-${end}.mp4`);
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

  tellTime() {
    document.dispatchEvent(new CustomEvent("scanonce-time", { detail: { seconds: this.now } }));
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
    on(this.root.querySelector(".pick"), "click", () => this.pick());
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
        if (!event.ctrlKey && !event.metaKey && !event.shiftKey) return; // the page scrolls
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
    else if (event.key === "p") this.pick();
    else if (event.key === "j") this.shuttle(-1);
    else if (event.key === "k") this.pause();
    else if (event.key === "l") this.shuttle(1);
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

Object.assign(Player.prototype, painting);

export default function (component) {
  const { parentElement } = component;
  const player = (parentElement.player ??= new Player(parentElement));
  player.update(component);
  return () => {
    player.close();
    if (parentElement.player === player) delete parentElement.player;
  };
}
