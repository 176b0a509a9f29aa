// The pixels around a place of both pictures, side by side, with the values of the one in the middle.

const FIELD = 21; // pixels of the picture before, across
const CELL = 6; // CSS pixels for each of them

export class Magnifier {
  #sides;

  // `element` goes onto a stage that is its containing block; what it says stands in the line of values, too.
  constructor() {
    this.element = Object.assign(document.createElement("div"), { className: "slider-magnifier", hidden: true });
    this.element.setAttribute("aria-hidden", "true");
    this.#sides = [0, 1].map(() => {
      const side = document.createElement("figure"), canvas = document.createElement("canvas"), about = document.createElement("figcaption");
      canvas.style.width = canvas.style.height = `${FIELD * CELL}px`;
      side.append(canvas, about);
      this.element.append(side);
      return { side, canvas, about };
    });
  }

  hide() {
    this.element.hidden = true;
  }

  // The pixel (x, y) of the picture before; `part` is the place of the picture after on it, `atLeft` the corner to use.
  show({ before, after, part, opacity, captions, x, y, atLeft }) {
    this.element.hidden = false;
    this.element.classList.toggle("at-left", atLeft);
    const whole = { x: 0, y: 0, width: before.width, height: before.height };
    this.#sides.forEach(({ side, canvas, about }, i) => {
      side.hidden = Boolean(i && !after);
      if (side.hidden) return;
      const cell = Math.max(1, Math.round(CELL * devicePixelRatio)), length = FIELD * cell, context = canvas.getContext("2d");
      canvas.width = canvas.height = length; // which clears it
      context.imageSmoothingEnabled = false;
      if (!i || opacity < 1) paint(context, before, whole, x, y, length);
      context.globalAlpha = opacity;
      if (i) paint(context, after, part, x, y, length);
      context.globalAlpha = 1;
      const at = (cell * (FIELD - 1)) / 2;
      context.strokeStyle = "#000";
      context.strokeRect(at - 1.5, at - 1.5, cell + 3, cell + 3);
      context.strokeStyle = "#fff";
      context.strokeRect(at - 0.5, at - 0.5, cell + 1, cell + 1);
      if (about.textContent !== captions[i]) about.textContent = captions[i];
    });
  }
}

function paint(context, picture, part, x, y, length) {
  const across = picture.width / part.width, down = picture.height / part.height, half = (FIELD - 1) / 2;
  const left = (x - half - part.x) * across, top = (y - half - part.y) * down;
  context.drawImage(picture.bitmap, left, top, FIELD * across, FIELD * down, 0, 0, length, length);
}
