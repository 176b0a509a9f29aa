// The page: images that were dropped, their jobs, and the controls.

import * as api from "./api.js";
import * as enlargement from "./enlargement.js";
import { Methods } from "./methods.js";
import { pictureOf } from "./pictures.js";
import { Queue } from "./queue.js";
import { resultName, zip } from "./results.js";
import { Slider } from "./slider.js";

const SPOT = 256; // side of the region that is tried first
const get = (id) => document.getElementById(id);

const items = [];
let current = null;
let known = { models: [], speeds: [] };
const empty = Object.assign(document.createElement("label"), { htmlFor: "files", textContent: "Drop a photograph here, or choose one" });
const viewer = new Slider(get("viewer"), { onSpot: trySpot, empty });
viewer.bar.append(get("try"), get("download"));

// --- settings

const task = () => document.querySelector("input[name=task]:checked").value;
const enlarges = () => task() === "upscale" || task() === "restore";
const SUFFIXES = { restore: "-restored", denoise: "-denoised", dejpeg: "-dejpeg", upscale: "" };
let lastTask = null;

function settings() {
  // A kind of picture chooses the model, and that for photographs and scans takes no level.
  const kind = task() === "restore" || task() === "denoise" ? get("kind").value : "";
  const chosen = { model: kind || task() === "restore" ? "" : get("model").value, steps: get("steps").value, for: kind };
  if (task() === "denoise") chosen.sigma = get("auto").checked || kind === "photo" || kind === "scan" ? "" : get("sigma").value;
  if (task() !== "upscale") chosen.strength = get("strength").value / 100;
  return enlarges() ? { ...chosen, ...enlargement.read() } : chosen;
}

function fitsTask(model) {
  return model.task === null || model.task === task() || (model.task === "photo" && task() === "denoise");
}

function fill(select, choices) {
  const chosen = select.value;
  select.replaceChildren(...choices.map(([value, label]) => new Option(label, value)));
  if (choices.some(([value]) => String(value) === chosen)) select.value = chosen;
}

function settingsChanged() {
  for (const field of document.querySelectorAll("[data-for]")) field.hidden = !field.dataset.for.split(" ").includes(task());
  enlargement.arrange(task(), task() !== lastTask);
  lastTask = task();
  const names = known.models.filter(fitsTask).map(({ name }) => name);
  fill(get("model"), [["", "Automatic"], ...names.map((name) => [name, name])]);
  methods.offer(names);
  const model = known.models.find(({ name }) => name === get("model").value);
  const steps = model ? model.steps : [2, 4, 6];
  fill(get("steps"), [["", "All (most accurate)"], ...steps.slice(0, -1).map((count) => [count, `${count} (faster)`])]);
  get("steps").disabled = steps.length < 2;
  const kind = task() === "denoise" ? get("kind").value : "";
  get("model").disabled = kind !== "";
  get("auto").disabled = kind === "photo" || kind === "scan";
  get("sigma").disabled = get("auto").checked || get("auto").disabled;
  get("sigma-value").value = get("sigma").disabled ? "auto" : get("sigma").value;
  get("strength-value").value = `${get("strength").value}%`;
  showCurrent();
}

function estimate() {
  if (!current?.before) return "";
  const scale = enlarges() ? enlargement.factor(current.before) : 1;
  const megapixels = (current.before.width * current.before.height * scale ** 2) / 1e6;
  const steps = Number(get("steps").value) || null, model = get("model").value || current.model;
  const of = (count) => known.speeds.find((s) => s.task === task() && s.steps === count && (!model || s.model === model));
  const speed = of(steps)?.seconds_per_megapixel ?? (steps ? (of(null)?.seconds_per_megapixel * steps) / 6 : undefined);
  if (!(speed >= 0 && megapixels >= 0)) return "Try a spot to learn how long the whole will take.";
  const seconds = speed * megapixels;
  return `The whole will take about ${seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`}.`;
}

const learn = async () => {
  known = await api.models();
  settingsChanged();
};

// --- images

function add(files) {
  let loaded = Promise.resolve();
  for (const file of files) {
    const item = { file, name: file.name || "pasted.png", state: "new", progress: 0, text: "", notes: [] };
    items.push(item);
    queue.add(item);
    item.loaded = loaded = loaded.then(() => load(item));
  }
  showCurrent();
}

async function load(item) {
  if (!items.includes(item)) return; // removed meanwhile
  try {
    item.before = await pictureOf(item.file);
  } catch (error) {
    Object.assign(item, { state: "failed", text: error.message });
  }
  queue.paint(item);
  if (!items.includes(item)) return;
  if (!current || current.state === "failed") current = item;
  showCurrent();
}

const restoreAll = () => items.forEach((item) => item.loaded.then(() => items.includes(item) && restore(item)));

const queue = new Queue(get("queue"), {
  chosen(item) {
    if (item.after) item.preview = null; // back to the whole
    current = item;
    showCurrent();
  },
  removed(item) {
    if (item.state === "queued" || item.state === "running") cancel(item);
    if (item.url) URL.revokeObjectURL(item.url);
    const place = items.indexOf(item);
    items.splice(place, 1);
    if (item === current) current = items[Math.min(place, items.length - 1)] ?? null;
    showCurrent();
  },
});

// --- work

async function restore(item) {
  if (!item.before || item.state === "running" || item.state === "queued") return;
  Object.assign(item, { state: "queued", progress: 0, text: "Sending", notes: [], task: task(), options: settings() });
  Object.assign(item, { preview: null, after: null });
  showCurrent();
  try {
    const job = await api.submit(item.task, item.file, { ...item.options, format: get("format").value });
    item.job = job.id;
    if (item.cancelled) await api.remove(job.id);
    const last = await api.follow(job.id, (now) => {
      Object.assign(item, { state: now.state === "queued" ? "queued" : "running", progress: now.progress });
      item.text = now.state === "queued" ? `Waiting, ${now.position ?? 0} before it` : `Restoring, ${Math.round(100 * now.progress)}%`;
      showCurrent();
    });
    if (last?.state === "failed") throw new Error(api.describe(last.error));
    if (item.cancelled || last?.state !== "done") {
      Object.assign(item, { state: "cancelled", text: "Cancelled" });
    } else {
      await finish(item, last.result);
    }
  } catch (error) {
    const state = item.cancelled ? "cancelled" : "failed";
    Object.assign(item, { state, text: item.cancelled ? "Cancelled" : error.message });
  }
  Object.assign(item, { cancelled: false, job: null });
  queue.paint(item);
  showCurrent();
}

async function finish(item, report) {
  const blob = await api.result(item.job);
  await api.remove(item.job);
  item.after = await pictureOf(blob, item.before);
  if (item.url) URL.revokeObjectURL(item.url);
  item.url = URL.createObjectURL(blob);
  const level = report.sigma === null ? "" : `, noise level ${report.sigma.toFixed(1)}${report.sigma_estimated ? " (estimated)" : ""}`;
  Object.assign(item, { state: "done", progress: 1, model: report.model, result: blob });
  item.download = resultName(item.name, blob.type, SUFFIXES[item.task] + enlargement.suffix(item.options));
  item.text = `Done in ${report.seconds.toFixed(1)} s ${report.model === "no model" ? "by measuring alone" : `with ${report.model}${level}`}`;
  // The library names its arguments; the page has fields with these names.
  const fields = { sigma: "the field Noise level", model: "the field Model", data_range: "the range" };
  item.notes = [...report.warnings, ...report.notes].map((note) => note.replace(/\b(sigma|model|data_range)=/g, (_, name) => fields[name]));
  await learn();
}

async function cancel(item) {
  item.cancelled = true;
  item.text = "Cancelling";
  showCurrent();
  if (item.job) await api.remove(item.job).catch(() => {});
}

// The settings for a part of a picture: a size, which is that of the whole, becomes a factor.
function spotSettings(item) {
  const { size, fit, ...others } = settings();
  return size || fit ? { ...others, scale: enlargement.factor(item.before) || "none" } : others;
}

// A square around a place, moved into the picture.
function spotAround({ x, y }, { width, height }) {
  const side = { width: Math.min(SPOT, width), height: Math.min(SPOT, height) };
  const at = (middle, part, whole) => Math.round(Math.min(Math.max(middle - part / 2, 0), whole - part));
  return { x: at(x, side.width, width), y: at(y, side.height, height), ...side };
}

async function tried(item, blob, about) {
  return { picture: await pictureOf(blob, item.before), ...about };
}

async function trySpot(place) {
  const item = current;
  const region = (item.spot = spotAround(place, item.before));
  item.text = "Trying a spot";
  showCurrent();
  try {
    const options = { ...spotSettings(item), region: [region.x, region.y, region.width, region.height].join(",") };
    const { blob, report } = await api.restoreNow(task(), item.file, options);
    item.preview = await tried(item, blob, { region, strength: options.strength });
    item.model = report.model;
    item.text = `A spot of ${region.width}x${region.height} in ${report.seconds.toFixed(1)} s; approximate at its edge`;
    await learn();
  } catch (error) {
    item.text = error.message;
  }
  showCurrent();
}

const methods = new Methods({
  item: () => current,
  task,
  options: (item) => ({ ...spotSettings(item), steps: "" }), // which are those of one model
  region: (item) => item.spot ?? spotAround({ x: item.before.width / 2, y: item.before.height / 2 }, item.before),
  tried,
  show(item, preview) {
    Object.assign(item, { preview, text: `A spot by ${preview.name}; approximate at its edge` });
    current = item;
    showCurrent();
    get("viewer").scrollIntoView({ block: "nearest" });
  },
});

// --- what is shown

function showCurrent() {
  const item = current, busy = item?.state === "queued" || item?.state === "running";
  queue.label(current);
  const ready = items.filter((one) => one.before && one.state !== "queued" && one.state !== "running");
  get("restore").disabled = !item?.before || busy;
  get("all").hidden = items.length < 2;
  get("all").disabled = !ready.length;
  get("cancel").hidden = !busy;
  get("progress").hidden = !busy;
  get("progress").value = item?.progress ?? 0;
  get("try").disabled = !item?.before || busy;
  const preview = item?.preview, after = preview?.picture ?? item?.after ?? null;
  methods.enable(Boolean(item?.before) && !busy);
  showDownload(item);
  get("estimate").textContent = estimate();
  const turned = strengthNow(item);
  get("status").textContent = (item?.text ?? "") + (turned === null || turned === 1 ? "" : ". The view follows the strength; restore again to download it.");
  get("notes").replaceChildren(...(item?.notes ?? []).map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  const labels = ["Before", preview ? `${preview.name ?? "After"}: a spot, approximate at its edge` : "After"];
  viewer.show({ before: item?.before, after, region: preview?.region, opacity: turned ?? 1, labels });
}

// The share of the change to show when the strength was turned down after the work: what is shown is linear in it.
function strengthNow(item) {
  const made = item?.preview ? item.preview.strength : item?.after ? item.options.strength : null;
  if (!made || (enlarges() && get("scale").value !== "")) return null;
  return Math.min(1, get("strength").value / 100 / made);
}

function showDownload(item) {
  const link = get("download");
  link.hidden = !item?.url || item.state !== "done";
  if (!link.hidden) Object.assign(link, { href: item.url, download: item.download });
  get("zip").hidden = items.filter(({ state }) => state === "done").length < 2;
}

async function downloadAll() {
  const done = items.filter(({ state }) => state === "done");
  try {
    const href = URL.createObjectURL(await zip(done.map(({ download, result }) => ({ name: download, blob: result }))));
    Object.assign(document.createElement("a"), { href, download: "nlrn-results.zip" }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60000);
  } catch (error) {
    get("status").textContent = error.message;
  }
}

get("try").addEventListener("click", (event) => {
  viewer.trying = !viewer.trying;
  event.target.setAttribute("aria-pressed", viewer.trying);
  get("viewer").classList.toggle("trying", viewer.trying);
  if (viewer.trying && current) {
    current.text = "Click the spot to try, or press Enter in the picture for its middle";
    showCurrent();
  }
});
get("restore").addEventListener("click", () => restore(current));
get("all").addEventListener("click", restoreAll);
get("zip").addEventListener("click", downloadAll);
get("cancel").addEventListener("click", () => cancel(current));
get("files").addEventListener("change", (event) => {
  add([...event.target.files]);
  event.target.value = "";
});
document.querySelector(".controls").addEventListener("input", (event) => event.target.id !== "files" && settingsChanged());
addEventListener("paste", (event) => add([...event.clipboardData.files]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", () => document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const files = [...event.dataTransfer.files];
  if (event.target.closest?.("#clean-drop") && files.length) methods.setClean(files[0]);
  else add(files);
});

learn().catch((error) => (get("status").textContent = error.message));
