// The images of the page as thumbnails: one button of each chooses it, another one takes it away.

const WIDTH = 240, HEIGHT = 144;
const MARKS = { done: "✓ ", failed: "✗ " };
const make = (kind, properties = {}) => Object.assign(document.createElement(kind), properties);

export class Queue {
  #list;
  #on;
  #rows = new Map(); // by item

  // `on` has `chosen(item)` and `removed(item)`.
  constructor(list, on) {
    this.#list = list;
    this.#on = on;
  }

  add(item) {
    const row = make("li"), thumb = make("canvas", { width: WIDTH, height: HEIGHT }), label = make("span", { textContent: item.name });
    const choose = make("button", { type: "button", onclick: () => this.#on.chosen(item) });
    const remove = make("button", { type: "button", className: "remove", textContent: "×", ariaLabel: `Remove ${item.name}` });
    remove.addEventListener("click", () => this.#remove(item));
    choose.append(thumb, label);
    row.append(choose, remove);
    this.#list.append(row);
    this.#rows.set(item, { row, thumb, label, choose });
  }

  #remove(item) {
    this.#rows.get(item).row.remove();
    this.#rows.delete(item);
    this.#on.removed(item);
  }

  paint(item) {
    const shown = item.after ?? item.before, thumb = this.#rows.get(item)?.thumb;
    if (!shown || !thumb) return;
    const size = Math.min(WIDTH / shown.width, HEIGHT / shown.height), width = shown.width * size, height = shown.height * size;
    const context = thumb.getContext("2d");
    context.clearRect(0, 0, WIDTH, HEIGHT);
    shown.draw(context, (WIDTH - width) / 2, (HEIGHT - height) / 2, width, height);
  }

  label(current) {
    for (const [item, { label, choose }] of this.#rows) {
      choose.setAttribute("aria-pressed", item === current);
      const mark = item.state === "running" ? `${Math.round(100 * item.progress)}% ` : (MARKS[item.state] ?? "");
      label.textContent = mark + item.name;
    }
  }
}
