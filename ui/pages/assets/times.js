// Times as people read them; components that need them put this text in front of their scripts.

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

// Number of the frame that is shown at a time; a time a hundredth of a frame before a frame counts as its start.
const frameAt = (seconds, fps) => Math.floor(seconds * fps + 0.01);

// h:mm:ss:ff, as `ui.views.timecode`
function timecode(seconds, fps) {
  const base = Math.max(1, Math.round(fps));
  const frame = frameAt(seconds, fps);
  return `${clock(Math.floor(frame / base), 0)}:${String(frame % base).padStart(2, "0")}`;
}
