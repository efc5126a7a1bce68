// How the strip under the player is painted; these are methods of `Player`.

const STRIP_HEIGHT = 56; // the times are below it on the canvas
const TICKS = [0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];

const painting = {
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
    this.paintLine(pen, width, ink, style.fontFamily);
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
    this.root.querySelector(".now").textContent = timecode(this.now, this.fps);
    this.canvas.setAttribute("aria-valuenow", this.now.toFixed(1));
    this.canvas.setAttribute("aria-valuetext", clock(this.now));
    this.tellTime();
  },

  paintMoments(pen, x, accent) {
    pen.fillStyle = accent;
    for (const { start, end } of this.data.moments) {
      const width = Math.max(x(end) - x(start), 2);
      pen.globalAlpha = 0.16;
      pen.fillRect(x(start), 0, width, STRIP_HEIGHT);
      pen.globalAlpha = 1;
      pen.fillRect(x(start), STRIP_HEIGHT - 3, width, 3);
    }
  },

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
  },

  // The line of a good match.
  paintLine(pen, width, ink, font) {
    const { levels, line } = this.data;
    if (!levels.length || line === null) return;
    const y = STRIP_HEIGHT - 5 - (line / 255) * (STRIP_HEIGHT - 16);
    pen.fillStyle = ink;
    pen.globalAlpha = 0.5;
    for (let x = 0; x < width; x += 8) pen.fillRect(x, y, 4, 1);
    pen.globalAlpha = 0.85;
    pen.font = `11px ${font}`;
    pen.textAlign = "right";
    pen.textBaseline = "bottom";
    pen.fillText("good match", width - 4, y - 1);
    pen.globalAlpha = 1;
  },

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
  },

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
  },
};
