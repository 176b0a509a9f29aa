// Before and after under one slider: zoom and pan of both together, and the values of the pixels under the pointer.
//
//   import { Picture } from "./pixels.js";
//   const slider = new Slider(document.querySelector("#place"));
//   slider.show({ before: await Picture.of(blob), after: await Picture.of(other) });
//
// Positions are in pixels of the picture before.

import { Magnifier } from "./magnifier.js";

const GRIP = 24; // CSS pixels beside the divider in which a pointer takes it
const ZOOMS = [["fit", "Fit"], [1, "100%"], [2, "200%"]];
const SMALLEST = 0.02, LARGEST = 64;

const make = (kind, properties) => Object.assign(document.createElement(kind), properties);
const between = (low, value, high) => Math.min(Math.max(value, low), high);

// The toolbar, the stage and the line of values, in `root`. `onSpot` is called with a position while `trying` is true.
export class Slider {
  #root;
  #canvas = make("canvas", { className: "slider-canvas" });
  #range = make("input", { type: "range", className: "slider-range", min: 0, max: 1000, step: 5, value: 500 });
  #tags = ["left", "right"].map((side) => make("span", { className: `slider-tag ${side}`, hidden: true }));
  #values = make("p", { className: "slider-values" });
  #size = make("span", { className: "slider-size" });
  #buttons;
  #magnifier = new Magnifier();
  #lens = make("button", { type: "button", textContent: "Magnifier" });
  #empty; // stands on the stage while there is no picture
  #pointers = new Map(); // those that are down: where they are
  #drag = null;
  #probe = null; // the pixel whose values are shown
  #frame = 0;

  constructor(root, { onSpot = () => {}, empty = make("span") } = {}) {
    Object.assign(this, { before: null, after: null, region: null, opacity: 1, split: 0.5, zoom: "fit", x: 0, y: 0 });
    Object.assign(this, { trying: false, magnifying: false, onSpot, labels: ["Before", "After"] });
    this.#root = root;
    root.classList.add("slider");
    this.#build(empty);
    const canvas = this.#canvas;
    const observer = new ResizeObserver(([entry]) => this.#resize(entry));
    try {
      observer.observe(canvas, { box: "device-pixel-content-box" });
    } catch {
      observer.observe(canvas); // Safari
    }
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => this.#up(event));
    canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && !this.magnifying && this.#look(null));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.#range.addEventListener("keydown", (event) => this.#key(event));
    this.#range.addEventListener("input", () => this.#slide(this.#range.value / 1000));
  }

  #build(empty) {
    // Pages add controls of their own to the bar.
    this.bar = make("div", { className: "slider-bar" });
    this.bar.setAttribute("role", "group");
    this.bar.setAttribute("aria-label", "View");
    this.#buttons = ZOOMS.map(([zoom, textContent]) => {
      const button = make("button", { type: "button", textContent });
      button.addEventListener("click", () => this.setZoom(zoom));
      return button;
    });
    this.#lens.addEventListener("click", () => this.magnify(!this.magnifying));
    this.bar.append(...this.#buttons, this.#lens, this.#size);
    const stage = make("div", { className: "slider-stage" });
    this.#canvas.setAttribute("aria-hidden", "true"); // the range stands for it
    this.#values.setAttribute("aria-live", "polite");
    empty.classList.add("slider-empty");
    this.#empty = empty;
    stage.append(this.#canvas, this.#range, ...this.#tags, this.#magnifier.element, empty);
    this.#root.replaceChildren(this.bar, stage, this.#values);
    this.show({});
  }

  // `after` may be larger by a whole number, or a part of the picture: then it lies at `region`. `opacity` blends it in.
  show({ before = null, after = null, region = null, opacity = 1, labels = ["Before", "After"] }) {
    const other = before !== this.before;
    Object.assign(this, { before, after, region, opacity, labels });
    if (other && before) Object.assign(this, { x: before.width / 2, y: before.height / 2 });
    if (other) this.#look(this.magnifying && before ? { left: this.#stage.width / 2, top: this.#stage.height / 2 } : null);
    this.#empty.hidden = Boolean(before);
    this.#tags.forEach((tag, i) => Object.assign(tag, { hidden: !after, textContent: labels[i] }));
    const sizes = [before, !region && after?.width !== before?.width && after].filter(Boolean);
    this.#size.textContent = sizes.map(({ width, height }) => `${width}x${height}`).join(" → ");
    const label = after ? `${labels.join(" and ")}: how much is ${labels[0]}` : before ? "Picture, arrow keys move the view" : "No picture yet";
    this.#range.setAttribute("aria-label", `${label}. Plus, minus, 0, 1 and 2 zoom, M magnifies${after ? ", shift and arrow keys move the view or the magnifier" : ""}.`);
    this.#slide(this.split);
  }

  // In whole pixels of the screen, or the browser would blur the canvas.
  #resize(entry) {
    const exact = entry.devicePixelContentBoxSize?.[0], { width, height } = entry.contentRect;
    const whole = (pixels, size) => (Math.abs(pixels - size * devicePixelRatio) <= 1 ? pixels : Math.round(size * devicePixelRatio));
    this.#canvas.width = whole(exact?.inlineSize, width);
    this.#canvas.height = whole(exact?.blockSize, height);
    this.draw();
  }

  // The size of the stage in CSS pixels.
  get #stage() {
    return { width: this.#canvas.width / devicePixelRatio, height: this.#canvas.height / devicePixelRatio };
  }

  setZoom(zoom) {
    this.zoom = zoom;
    this.draw();
  }

  // Shows the pixels around the pointer, or at first around the middle of the view.
  magnify(on) {
    this.magnifying = on;
    if (on && !this.#probe) this.#look({ left: this.#stage.width / 2, top: this.#stage.height / 2 });
    this.draw();
  }

  get #enlarged() {
    return this.after && !this.region ? this.after.width / this.before.width : 1;
  }

  // CSS pixels for a pixel of the picture before; at 100% a pixel of the result is one of the screen.
  get #scale() {
    if (!this.before) return 1;
    const stage = this.#stage;
    if (this.zoom === "fit") return Math.min(stage.width / this.before.width, stage.height / this.before.height) || 1;
    return (this.zoom * this.#enlarged) / devicePixelRatio;
  }

  // CSS pixels of the stage under the part that has an after.
  get #area() {
    const { x, y, width, height } = this.region ?? { x: 0, y: 0, width: this.before.width, height: this.before.height };
    const scale = this.#scale, stage = this.#stage;
    const left = stage.width / 2 + (x - this.x) * scale, top = stage.height / 2 + (y - this.y) * scale;
    return { left, top, width: width * scale, height: height * scale };
  }

  // The divider runs over what is seen of that part.
  get #track() {
    const { left, width } = this.#area, from = Math.max(left, 0), to = Math.min(left + width, this.#stage.width);
    return to > from ? { from, width: to - from } : { from: 0, width: this.#stage.width };
  }

  get #divider() {
    const { from, width } = this.#track;
    return from + this.split * width;
  }

  get #fits() {
    const stage = this.#stage, scale = this.#scale;
    return this.before.width * scale <= stage.width + 1 && this.before.height * scale <= stage.height + 1;
  }

  draw() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#paint();
    });
  }

  #paint() {
    const canvas = this.#canvas, ratio = devicePixelRatio, { before, after } = this;
    const context = canvas.getContext("2d"), stage = this.#stage;
    context.reset();
    ZOOMS.forEach(([zoom], i) => this.#buttons[i].setAttribute("aria-pressed", zoom === this.zoom));
    this.#lens.setAttribute("aria-pressed", this.magnifying);
    this.#showValues();
    if (!before) return;
    this.#limit();
    const scale = this.#scale;
    canvas.style.touchAction = this.#fits && !this.magnifying ? "pan-y" : "none";
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = scale * ratio < 1 || this.#enlarged > 1;
    context.imageSmoothingQuality = "high";
    // On whole pixels of the screen, so that a picture at 100% is not blurred.
    const snap = (value) => Math.round(value * ratio) / ratio;
    const all = [snap(stage.width / 2 - this.x * scale), snap(stage.height / 2 - this.y * scale), before.width * scale, before.height * scale];
    const { left, top, width, height } = this.#area, split = this.#divider;
    const clipped = (from, to, paint) => {
      context.save();
      context.beginPath();
      context.rect(from, 0, to - from, stage.height);
      context.clip();
      paint();
      context.restore();
    };
    const whole = !after || this.region || this.opacity < 1;
    clipped(0, whole ? stage.width : split, () => before.draw(context, ...all));
    if (!after) return;
    clipped(split, stage.width, () => {
      context.globalAlpha = this.opacity;
      after.draw(context, snap(left), snap(top), width, height);
    });
    this.#paintDivider(context, split, this.region && { left, top, width, height });
  }

  #paintDivider(context, split, frame) {
    const height = this.#stage.height, middle = height / 2;
    context.shadowColor = "#000a";
    context.shadowBlur = 4;
    context.fillStyle = context.strokeStyle = "#fff";
    context.lineWidth = 2;
    if (frame) context.strokeRect(frame.left, frame.top, frame.width, frame.height);
    context.fillRect(split - 1, frame ? frame.top : 0, 2, frame ? frame.height : height);
    if (frame) return;
    context.beginPath();
    context.arc(split, middle, 15, 0, 7);
    context.fill();
    context.shadowBlur = 0;
    context.strokeStyle = "#20242b";
    context.beginPath();
    for (const side of [-1, 1]) {
      context.moveTo(split + side * 4, middle - 5);
      context.lineTo(split + side * 9, middle);
      context.lineTo(split + side * 4, middle + 5);
    }
    context.stroke();
  }

  #limit() {
    const inside = (middle, length, shown) => {
      const half = shown / this.#scale / 2;
      return length <= 2 * half ? length / 2 : between(half, middle, length - half);
    };
    this.x = inside(this.x, this.before.width, this.#stage.width);
    this.y = inside(this.y, this.before.height, this.#stage.height);
  }

  #slide(split) {
    this.split = between(0, split, 1);
    this.#range.value = Math.round(1000 * this.split);
    const share = Math.round(100 * this.split);
    this.#range.setAttribute("aria-valuetext", `${share}% ${this.labels[0]}, ${100 - share}% ${this.labels[1]}`);
    this.draw();
  }

  #pan(dx, dy) {
    this.x -= dx / this.#scale;
    this.y -= dy / this.#scale;
    this.draw();
  }

  // Zooms by a factor; what is at (left, top) of the stage stays there.
  #zoomBy(factor, left = this.#stage.width / 2, top = this.#stage.height / 2) {
    const spot = this.#at(left, top);
    const now = this.zoom === "fit" ? (this.#scale * devicePixelRatio) / this.#enlarged : this.zoom;
    this.zoom = between(SMALLEST, now * factor, LARGEST);
    this.x = spot.x - (left - this.#stage.width / 2) / this.#scale;
    this.y = spot.y - (top - this.#stage.height / 2) / this.#scale;
    this.draw();
  }

  #at(left, top) {
    const stage = this.#stage;
    return { x: this.x + (left - stage.width / 2) / this.#scale, y: this.y + (top - stage.height / 2) / this.#scale };
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    return { left: event.clientX - box.left, top: event.clientY - box.top };
  }

  #down(event) {
    if (!this.before || event.button) return;
    const at = this.#place(event);
    this.#look(at);
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, at);
    this.#range.focus({ preventScroll: true, focusVisible: false });
    event.preventDefault(); // or the focus goes elsewhere
    if (this.#pointers.size > 1) { // a pinch, which begins like a touch
      if (this.#drag) this.#slide(this.#drag.split);
      this.#drag = null;
      return;
    }
    this.#drag = { slides: this.#slidesAt(at), start: at, split: this.split };
    if (this.#drag.slides && event.pointerType === "mouse") this.#slideTo(at.left);
  }

  // Whether a pointer moves the divider from here: on it, or anywhere in a picture that cannot be moved itself, unless
  // the pointer leads the magnifier.
  #slidesAt({ left }) {
    return Boolean(this.after && !this.trying && (Math.abs(left - this.#divider) < GRIP || (this.#fits && !this.region && !this.magnifying)));
  }

  #slideTo(left) {
    const { from, width } = this.#track;
    this.#slide((left - from) / width);
  }

  #move(event) {
    if (!this.before) return;
    const at = this.#place(event), last = this.#pointers.get(event.pointerId);
    this.#look(at);
    this.#canvas.classList.toggle("slides", this.#slidesAt(at));
    if (!last) return;
    this.#pointers.set(event.pointerId, at);
    const [other] = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    if (other) {
      const far = (place) => Math.hypot(place.left - other.left, place.top - other.top) || 1;
      this.#pan((at.left - last.left) / 2, (at.top - last.top) / 2);
      this.#zoomBy(far(at) / far(last), (at.left + other.left) / 2, (at.top + other.top) / 2);
    } else if (this.#drag?.slides) this.#slideTo(at.left);
    else if (this.#drag && !(this.magnifying && event.pointerType === "touch")) this.#pan(at.left - last.left, at.top - last.top);
  }

  #up(event) {
    const at = this.#place(event), drag = this.#drag;
    this.#pointers.delete(event.pointerId);
    this.#drag = null;
    const still = drag && Math.hypot(at.left - drag.start.left, at.top - drag.start.top) < 5;
    if (event.type !== "pointerup" || !still) return;
    if (this.trying) this.onSpot(this.#at(at.left, at.top));
    else if (drag.slides) this.#slideTo(at.left);
  }

  #wheel(event) {
    // In a frame, such as a notebook's, the wheel alone goes on scrolling what is around it.
    if (!this.before || (window !== window.top && !event.ctrlKey)) return;
    event.preventDefault();
    const { left, top } = this.#place(event);
    this.#zoomBy(1.0015 ** -event.deltaY, left, top);
    this.#look({ left, top });
  }

  #key(event) {
    if (!this.before || event.ctrlKey || event.metaKey || event.altKey) return;
    const way = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (way && (event.shiftKey || !this.after)) {
      if (this.magnifying) {
        this.#step(-way[0], -way[1]);
        event.preventDefault();
        return;
      }
      this.#pan(60 * way[0], 60 * way[1]);
    } else if (event.key === "m" || event.key === "M") this.magnify(!this.magnifying);
    else if (event.key === "+" || event.key === "=") this.#zoomBy(Math.SQRT2);
    else if (event.key === "-") this.#zoomBy(Math.SQRT1_2);
    else if (event.key === "0") this.setZoom("fit");
    else if (event.key === "1" || event.key === "2") this.setZoom(Number(event.key));
    else if (event.key === "Enter" && this.trying) this.onSpot({ x: this.x, y: this.y });
    else return;
    event.preventDefault();
    this.#limit();
    if (!this.magnifying || !this.#probe) this.#look({ left: this.#stage.width / 2, top: this.#stage.height / 2 });
  }

  // Moves what is magnified by some four CSS pixels, but at least by a pixel, and the view with it.
  #step(right, down) {
    const { before } = this, step = Math.max(1, Math.round(4 / this.#scale)), from = this.#probe ?? { x: this.x, y: this.y };
    const to = (start, move, length) => between(0, Math.floor(start) + move * step, length - 1) + 0.5;
    const x = to(from.x, right, before.width), y = to(from.y, down, before.height);
    const half = { x: this.#stage.width / this.#scale / 2, y: this.#stage.height / this.#scale / 2 };
    this.x = between(x - half.x, this.x, x + half.x);
    this.y = between(y - half.y, this.y, y + half.y);
    this.#probe = { x, y };
    this.#readAndDraw();
  }

  // Shows the values of the pixel at a place of the stage; null for none.
  #look(place) {
    this.#probe = place && this.before ? this.#at(place.left, place.top) : null;
    this.#readAndDraw();
  }

  #readAndDraw() {
    for (const picture of this.#probe ? [this.before, this.after] : []) picture?.read().then(() => this.draw());
    this.draw();
  }

  #showValues() {
    const found = this.#probe ? this.#valuesAt(this.#probe) : null;
    const shown = found?.text ?? (this.before ? "Values of the pixel under the pointer" : "");
    if (this.#values.textContent !== shown) this.#values.textContent = shown;
    if (!this.magnifying || !found) return this.#magnifier.hide();
    const { before, after, opacity } = this, { x, y, part } = found;
    const captions = this.labels.map((label, i) => (found.values[i] === undefined ? label : `${label} ${written(found.values[i])}`));
    const atLeft = (this.#probe.x - this.x) * this.#scale > 0;
    this.#magnifier.show({ before, after, part, opacity, captions, x, y, atLeft });
  }

  #valuesAt(probe) {
    const { before, after } = this, inside = (left, top, width, height) => left >= 0 && top >= 0 && left < width && top < height;
    if (!inside(probe.x, probe.y, before.width, before.height)) return null;
    const x = Math.floor(probe.x), y = Math.floor(probe.y), values = [before.values(x, y)];
    const parts = [`x ${x}, y ${y}`, `${this.labels[0]} ${written(values[0])}`];
    const part = this.region ?? { x: 0, y: 0, width: before.width, height: before.height };
    const share = { x: (probe.x - part.x) / part.width, y: (probe.y - part.y) / part.height };
    // What is blended is in no file.
    if (after && this.opacity === 1 && inside(share.x, share.y, 1, 1)) {
      const [first] = values, second = after.values(Math.floor(share.x * after.width), Math.floor(share.y * after.height));
      values.push(second);
      parts.push(`${this.labels[1]} ${written(second)}`);
      if (first?.length && second?.length === first.length && this.#enlarged === 1) {
        parts.push(`difference ${written(second.map((value, i) => value - first[i]))}`);
      }
    }
    return { x, y, part, values, text: parts.join(" · ") };
  }
}

const written = (values) => (values ? values.map((value) => Number(value.toPrecision(7))).join(" ") || "unknown" : "…");
