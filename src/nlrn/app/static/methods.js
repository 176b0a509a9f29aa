// Up to four methods on a spot of the picture: seconds and, beside a clean image, PSNR and SSIM.

import * as api from "./api.js";

const USUAL = ["", "bm3d", "nlm", "none"]; // by default, where they fit the task; "" is automatic
const make = (kind, properties = {}) => Object.assign(document.createElement(kind), properties);
const get = (id) => document.getElementById(id);
// The part of a region whose places and sizes are whole pixels of a picture `scale` times as large, too.
function whole(region, scale) {
  const step = [...Array(20).keys()].map((i) => i + 1).find((step) => Math.abs(step * scale - Math.round(step * scale)) < 1e-9);
  if (!step) throw new Error("A clean image is compared at factors such as 1.5, 2 or 2.25.");
  const down = (number) => number - (number % step);
  return { x: down(region.x), y: down(region.y), width: down(region.width) || region.width, height: down(region.height) || region.height };
}

export class Methods {
  #page;
  #selects;
  #clean = null;
  #busy = false;

  // `page` has `item()`, `task()`, `options(item)`, `region(item)`, `tried(item, blob, about)` and `show(item, tried)`.
  constructor(page) {
    this.#page = page;
    this.#selects = USUAL.map((_, i) => make("select", { ariaLabel: `Method ${i + 1}` }));
    get("method-choices").append(...this.#selects);
    get("clean").addEventListener("change", (event) => this.setClean(event.target.files[0] ?? null));
    get("measure").addEventListener("click", () => this.#run());
  }

  // The methods that fit the task.
  offer(names) {
    this.#selects.forEach((select, i) => {
      const chosen = select.options.length ? select.value : USUAL[i];
      const choices = [["none", "None"], ["", "Automatic"], ...names.map((name) => [name, name])];
      select.replaceChildren(...choices.map(([value, label]) => new Option(label, value)));
      select.value = choices.some(([value]) => value === chosen) ? chosen : "none";
    });
  }

  setClean(file) {
    this.#clean = file;
    get("clean-name").textContent = file ? file.name : "none";
  }

  enable(able) {
    get("measure").disabled = !able || this.#busy;
  }

  async #run() {
    const item = this.#page.item(), task = this.#page.task(), clean = this.#clean;
    const rows = get("measured"), options = this.#page.options(item);
    const scale = Number(options.scale ?? 1);
    let region = this.#page.region(item);
    try {
      if (clean) region = whole(region, scale);
    } catch (error) {
      get("status").textContent = error.message;
      return;
    }
    const part = [region.x, region.y, region.width, region.height];
    const figures = async (blob) => (clean ? api.score(blob, clean, part.map((number) => Math.round(number * scale))) : {});
    this.#busy = true;
    this.enable(false);
    rows.replaceChildren();
    get("measured-about").textContent = `A spot of ${region.width}x${region.height} at x ${region.x}, y ${region.y} of ${item.name}`;
    get("table").hidden = false;
    if (clean && scale === 1) await this.#row("as it is", async () => ({ ...(await figures(item.file)), seconds: null }));
    for (const name of new Set(this.#selects.map(({ value }) => value).filter((value) => value !== "none"))) {
      await this.#row(name || "automatic", async () => {
        const { blob, report } = await api.restoreNow(task, item.file, { ...options, model: name, for: name ? "" : options.for, region: part.join(",") });
        const tried = await this.#page.tried(item, blob, { region, name: report.model, strength: options.strength });
        return { ...(await figures(blob)), seconds: report.seconds, model: report.model, show: () => this.#page.show(item, tried) };
      });
    }
    this.#busy = false;
    this.enable(true);
  }

  async #row(name, work) {
    const row = get("measured").insertRow(), title = make("th", { scope: "row", textContent: name });
    row.append(title);
    const cells = [0, 1, 2, 3].map(() => row.insertCell());
    cells[0].textContent = "…";
    try {
      const { seconds, psnr, ssim, identical, model, show } = await work();
      if (model && model !== name) title.textContent = `${name} (${model})`;
      cells[0].textContent = seconds === null ? "" : seconds.toFixed(1);
      cells[1].textContent = identical ? "identical" : (psnr?.toFixed(2) ?? "");
      cells[2].textContent = ssim?.toFixed(4) ?? "";
      if (show) cells[3].append(make("button", { type: "button", textContent: "Show", ariaLabel: `Show ${title.textContent}`, onclick: show }));
    } catch (error) {
      cells.slice(1).forEach((cell) => cell.remove());
      Object.assign(cells[0], { colSpan: 4, textContent: error.message });
    }
  }
}
