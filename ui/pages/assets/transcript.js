// The lines of a video beside its player.
//
// data: {video, version, tracks: [{name, label, lines: [[start, end, text]], downloads: [{label, href}]}]}
//   version   differs if the lines do
// It follows the player by the event "scanonce-time" of the document, and moves it by "scanonce-jump".
// The texts come from files: they are set as text, never as HTML.

const BLOCK = 100; // lines that are drawn together, when they come near: ten thousand stay quick
const LINE_PIXELS = 32; // of most lines
const NEAR = "500px 0px";
const SEARCH_MS = 120;
const SAID_MS = 2500;

// Letters as they are compared: lower case without accents. Each stays one unit long, so that places stay the same.
function folded(text) {
  const lower = text.toLowerCase();
  if (/^[\x00-\x7f]*$/.test(text)) return lower;
  return (lower.length === text.length ? lower : text).replace(/[^\x00-\x7f]/g, (letter) => {
    const bare = letter.normalize("NFD").replace(/\p{M}/gu, "");
    return bare.length === letter.length ? bare : letter;
  });
}

const clockOf = (seconds) => {
  const whole = Math.floor(seconds + 1e-6);
  const two = (number) => String(number).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
};

class Transcript {
  constructor(root) {
    this.root = root;
    const find = (name) => root.querySelector(`.${name}`);
    this.parts = Object.fromEntries(
      ["tracks", "words", "lines", "count", "follow", "copy", "downloads"].map((name) => [name, find(name)]),
    );
    this.now = 0;
    this.current = [];
    this.timers = {};
    this.life = new AbortController();
    this.listen();
  }

  // ------------------------------------------------ data from Python

  update({ data }) {
    if (this.data?.video === data.video && this.data.version === data.version) return;
    this.data = data;
    const kept = data.tracks.find((each) => each.name === this.track?.name);
    this.show(kept ?? data.tracks[0]);
    document.dispatchEvent(new CustomEvent("scanonce-where"));
  }

  show(track) {
    this.track = track;
    const { tracks, downloads } = this.parts;
    tracks.hidden = this.data.tracks.length < 2;
    tracks.replaceChildren(
      ...this.data.tracks.map((each) => {
        const button = element("button", "", each.label);
        button.type = "button";
        button.setAttribute("aria-pressed", String(each === track));
        button.onclick = () => {
          this.show(each);
          tracks.querySelector('[aria-pressed="true"]').focus();
        };
        return button;
      }),
    );
    downloads.replaceChildren(
      ...track.downloads.map(({ label, href }) => {
        const link = element("a", "", label);
        link.href = href;
        link.download = "";
        link.setAttribute("aria-label", `download as ${label}`);
        return link;
      }),
    );
    this.rows = track.lines.map(([start, end, text], number) => ({ number, start, end, text, place: -1 }));
    let latest = 0; // the latest end of this line and all before it: from there on none of them is current
    this.latest = this.rows.map(({ end }) => (latest = Math.max(latest, end)));
    this.current = [];
    this.reached = undefined;
    this.filter();
    this.at(this.now);
  }

  // ------------------------------------------------ search

  filter() {
    const asked = folded(this.parts.words.value.trim());
    this.asked = asked;
    this.shown = [];
    for (const row of this.rows) {
      if (asked) row.folded ??= folded(row.text);
      const isShown = !asked || row.folded.includes(asked);
      row.place = isShown ? this.shown.push(row) - 1 : -1;
      row.button = undefined;
    }
    this.tell();
    if (!(this.reached?.place >= 0)) this.reached = this.shown[0];
    this.draw();
    const row = this.current.find(({ place }) => place >= 0);
    if (row) this.reach(row);
  }

  draw() {
    this.seen?.disconnect();
    this.seen = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) if (isIntersecting) this.fill(this.blocks.indexOf(target));
      },
      { root: this.parts.lines, rootMargin: NEAR },
    );
    this.blocks = [];
    for (let first = 0; first < this.shown.length; first += BLOCK) {
      const block = element("div", "block");
      block.setAttribute("role", "presentation");
      block.style.minHeight = `${LINE_PIXELS * Math.min(BLOCK, this.shown.length - first)}px`;
      this.blocks.push(block);
      this.seen.observe(block);
    }
    this.parts.lines.replaceChildren(...this.blocks);
    this.parts.lines.scrollTop = 0;
    if (this.reached) this.fill(Math.floor(this.reached.place / BLOCK)); // the Tab key finds it
  }

  fill(number) {
    const block = this.blocks[number];
    if (!block || block.childElementCount) return;
    block.style.minHeight = "";
    block.append(...this.shown.slice(number * BLOCK, (number + 1) * BLOCK).map((row) => this.make(row)));
  }

  make(row) {
    const item = element("div");
    item.setAttribute("role", "listitem");
    row.button = element("button");
    row.button.type = "button";
    row.button.tabIndex = row === this.reached ? 0 : -1;
    row.button.dataset.number = row.number;
    if (this.current.includes(row)) row.button.setAttribute("aria-current", "true");
    const words = element("span", "text");
    words.append(...this.marked(row));
    row.button.append(element("span", "at", clockOf(row.start)), words);
    item.append(row.button);
    return item;
  }

  // The text of a line with what was looked for marked.
  marked({ text, folded: whole }) {
    if (!this.asked) return [text];
    const { length } = this.asked;
    const pieces = [];
    let at = 0;
    for (let place = whole.indexOf(this.asked); place >= 0; place = whole.indexOf(this.asked, at)) {
      pieces.push(text.slice(at, place), element("mark", "", text.slice(place, place + length)));
      at = place + length;
    }
    return [...pieces, text.slice(at)];
  }

  tell(text) {
    const all = this.rows.length.toLocaleString("en");
    const count = this.parts.words.value.trim() ? `${this.shown.length.toLocaleString("en")} of ${all}` : all;
    this.parts.count.textContent = text ?? `${count} ${this.rows.length === 1 ? "line" : "lines"}`;
    clearTimeout(this.timers.tell);
    if (text) this.timers.tell = setTimeout(() => this.tell(), SAID_MS);
  }

  // ------------------------------------------------ the player

  at(seconds) {
    this.now = seconds;
    const time = seconds + 0.01; // a player stops a little before the time it was sent to
    let [low, high] = [0, this.rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle].start <= time) low = middle + 1;
      else high = middle;
    }
    const current = [];
    for (let k = low - 1; k >= 0 && this.latest[k] > seconds; k -= 1) {
      if (this.rows[k].end > seconds) current.unshift(this.rows[k]);
    }
    if (current.length === this.current.length && current.every((row, k) => row === this.current[k])) return;
    for (const { button } of this.current) button?.removeAttribute("aria-current");
    for (const { button } of current) button?.setAttribute("aria-current", "true");
    this.current = current;
    const row = current.find(({ place }) => place >= 0);
    if (row) this.reach(row);
  }

  // Bring a line into view, unless a person is busy with the list; the page itself does not move.
  reach(row) {
    const { lines, follow } = this.parts;
    const isBusy = lines.matches(":hover") || lines.contains(this.root.activeElement);
    if (!follow.checked || isBusy) return;
    this.focusable(row);
    const [top, bottom] = [row.button.offsetTop, row.button.offsetTop + row.button.offsetHeight];
    if (top < lines.scrollTop || bottom > lines.scrollTop + lines.clientHeight) {
      lines.scrollTop = top - lines.clientHeight / 3;
    }
  }

  // One line at a time takes the focus: ten thousand would be in the way of the Tab key.
  focusable(row) {
    if (this.reached?.button) this.reached.button.tabIndex = -1;
    this.reached = row;
    this.fill(Math.floor(row.place / BLOCK));
    row.button.tabIndex = 0;
  }

  // ------------------------------------------------ input

  listen() {
    const { signal } = this.life;
    const on = (target, type, handle) => target.addEventListener(type, handle, { signal });
    const { words, lines, copy } = this.parts;
    on(document, "scanonce-time", ({ detail }) => this.rows && this.at(detail.seconds));
    on(words, "input", () => {
      clearTimeout(this.timers.search);
      this.timers.search = setTimeout(() => this.filter(), SEARCH_MS);
    });
    on(lines, "click", (event) => {
      const row = this.rowOf(event);
      if (!row || !window.getSelection().isCollapsed) return; // a person selects text
      this.focusable(row);
      document.dispatchEvent(new CustomEvent("scanonce-jump", { detail: { seconds: row.start } }));
    });
    on(lines, "keydown", (event) => this.move(event));
    on(copy, "click", () => this.copy());
  }

  rowOf(event) {
    const button = event.target.closest("button");
    return button ? this.rows[Number(button.dataset.number)] : undefined;
  }

  move(event) {
    const at = this.rowOf(event)?.place ?? -1;
    const last = this.shown.length - 1;
    const goal = { ArrowUp: at - 1, ArrowDown: at + 1, PageUp: at - 10, PageDown: at + 10, Home: 0, End: last }[event.key];
    if (at < 0 || goal === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.focusable(this.shown[Math.min(Math.max(goal, 0), last)]);
    this.reached.button.focus();
  }

  async copy() {
    const text = this.shown.map(({ start, text }) => `${clockOf(start)}  ${text}`).join("\n");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      if (!this.copyOldWay(text)) return this.tell("The browser does not allow copying.");
    }
    this.tell(`${this.shown.length.toLocaleString("en")} copied`);
  }

  // Browsers give pages without https no clipboard, but copy what is selected.
  copyOldWay(text) {
    const area = element("textarea");
    area.value = text;
    area.style.cssText = "position: fixed; opacity: 0";
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    this.parts.copy.focus();
    return isDone;
  }

  close() {
    this.life.abort();
    this.seen?.disconnect();
    Object.values(this.timers).forEach(clearTimeout);
  }
}

export default function (component) {
  const { parentElement } = component;
  const transcript = (parentElement.transcript ??= new Transcript(parentElement));
  transcript.update(component);
  return () => {
    transcript.close();
    if (parentElement.transcript === transcript) delete parentElement.transcript;
  };
}
