// Before and after on one canvas, with zoom and pan. Positions are pixels of the picture before.

export class Viewer {
  constructor(canvas, onSpot) {
    this.canvas = canvas;
    this.before = this.after = null;
    this.region = null; // where `after` lies, if it is a part
    this.opacity = 1;
    this.split = 0.5;
    this.zoom = "fit";
    this.x = this.y = 0; // the middle of the view
    this.trying = false;
    this.onSpot = onSpot;
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  show(before, after, region = null) {
    const other = before !== this.before;
    Object.assign(this, { before, after, region });
    if (other && before) {
      this.x = before.width / 2;
      this.y = before.height / 2;
    }
    this.draw();
  }

  setZoom(zoom) {
    this.zoom = zoom;
    this.draw();
  }

  // CSS pixels for a pixel of the picture before; at 100% a pixel of the result is one of the screen.
  get scale() {
    if (!this.before) return 1;
    if (this.zoom === "fit") {
      return Math.min(this.canvas.clientWidth / this.before.width, this.canvas.clientHeight / this.before.height);
    }
    const enlarged = this.after && !this.region ? this.after.width / this.before.width : 1;
    return (this.zoom * enlarged) / devicePixelRatio;
  }

  draw() {
    const { canvas, before } = this;
    const ratio = devicePixelRatio, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    if (!before) return;
    const context = canvas.getContext("2d"), scale = this.scale * ratio;
    this.#limit();
    const left = canvas.width / 2 - this.x * scale, top = canvas.height / 2 - this.y * scale;
    context.imageSmoothingEnabled = scale < 1 || (this.after && this.after.width > before.width);
    context.imageSmoothingQuality = "high";
    context.drawImage(before, left, top, before.width * scale, before.height * scale);
    if (!this.after) return;
    const { x, y, width: w, height: h } = this.region ?? { x: 0, y: 0, width: before.width, height: before.height };
    const area = [left + x * scale, top + y * scale, w * scale, h * scale];
    const split = this.region ? area[0] + this.split * area[2] : this.split * canvas.width;
    context.save();
    context.beginPath();
    context.rect(split, 0, canvas.width, canvas.height);
    context.clip();
    context.globalAlpha = this.opacity;
    context.drawImage(this.after, ...area);
    context.restore();
    context.fillStyle = "#fff";
    context.fillRect(Math.round(split - ratio), this.region ? area[1] : 0, 2 * ratio, this.region ? area[3] : canvas.height);
    if (this.region) {
      context.strokeStyle = "#fff";
      context.lineWidth = 2 * ratio;
      context.strokeRect(...area);
    }
  }

  #limit() {
    const inside = (middle, length, shown) => {
      const half = shown / this.scale / 2;
      return length <= 2 * half ? length / 2 : Math.min(Math.max(middle, half), length - half);
    };
    this.x = inside(this.x, this.before.width, this.canvas.clientWidth);
    this.y = inside(this.y, this.before.height, this.canvas.clientHeight);
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: this.x + (event.clientX - box.left - box.width / 2) / this.scale,
      y: this.y + (event.clientY - box.top - box.height / 2) / this.scale,
    };
  }

  #down(event) {
    if (!this.before || event.button) return;
    const start = { x: this.x, y: this.y, left: event.clientX, top: event.clientY };
    const move = (now) => {
      this.x = start.x - (now.clientX - start.left) / this.scale;
      this.y = start.y - (now.clientY - start.top) / this.scale;
      this.draw();
    };
    const up = (now) => {
      this.canvas.removeEventListener("pointermove", move);
      const still = Math.hypot(now.clientX - start.left, now.clientY - start.top) < 5;
      if (now.type === "pointerup" && still && this.trying) this.onSpot(this.#at(now));
    };
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("pointerup", up, { once: true });
  }

  #wheel(event) {
    if (!this.before) return;
    event.preventDefault();
    const spot = this.#at(event), old = this.scale;
    const base = this.zoom === "fit" ? this.scale * devicePixelRatio : this.zoom;
    this.zoom = Math.min(Math.max(base * 1.0015 ** -event.deltaY, 0.05), 16);
    const ratio = old / this.scale;
    this.x = spot.x + (this.x - spot.x) * ratio;
    this.y = spot.y + (this.y - spot.y) * ratio;
    this.draw();
    this.canvas.dispatchEvent(new Event("zoomed"));
  }

  #key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!this.before) return;
    if (step) {
      this.x += (step[0] * 60) / this.scale;
      this.y += (step[1] * 60) / this.scale;
      this.draw();
    } else if (event.key === "Enter" && this.trying) {
      this.onSpot({ x: this.x, y: this.y });
    } else return;
    event.preventDefault();
  }
}
