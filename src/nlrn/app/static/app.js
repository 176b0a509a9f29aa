// The page: images that were dropped, their jobs, and the controls.

import * as api from "./api.js";
import { Picture, readPixels, readPng } from "./pixels.js";
import { Slider } from "./slider.js";

const SPOT = 256; // side of the region that is tried first
const SUFFIX = { denoise: "-denoised", dejpeg: "-dejpeg", upscale: "-x" };
const EXTENSIONS = { "image/jpeg": ["jpg", "jpeg"], "image/png": ["png"], "image/tiff": ["tif", "tiff"], "image/webp": ["webp"], "image/bmp": ["bmp"] };
const get = (id) => document.getElementById(id);

const items = [];
let current = null;
let known = { models: [], speeds: [] };
const empty = Object.assign(document.createElement("label"), { htmlFor: "files", textContent: "Drop a photograph here, or choose one" });
const viewer = new Slider(get("viewer"), { onSpot: trySpot, empty });
viewer.bar.append(get("try"), get("download"));

// --- settings

const task = () => document.querySelector("input[name=task]:checked").value;

function settings() {
  const chosen = { model: get("model").value, steps: get("steps").value };
  if (task() === "denoise") chosen.sigma = get("auto").checked ? "" : get("sigma").value;
  if (task() === "upscale") chosen.scale = get("scale").value;
  else chosen.strength = get("strength").value / 100;
  return chosen;
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
  fill(get("model"), [["", "Automatic"], ...known.models.filter(fitsTask).map(({ name }) => [name, name])]);
  const model = known.models.find(({ name }) => name === get("model").value);
  const steps = model ? model.steps : [2, 4, 6];
  fill(get("steps"), [["", "All (most accurate)"], ...steps.slice(0, -1).map((count) => [count, `${count} (faster)`])]);
  get("steps").disabled = steps.length < 2;
  get("sigma").disabled = get("auto").checked;
  get("sigma-value").value = get("auto").checked ? "auto" : get("sigma").value;
  get("strength-value").value = `${get("strength").value}%`;
  showCurrent();
}

function estimate() {
  if (!current?.before) return "";
  const scale = task() === "upscale" ? Number(get("scale").value) : 1;
  const megapixels = (current.before.width * current.before.height * scale ** 2) / 1e6;
  const steps = Number(get("steps").value) || null, model = get("model").value || current.model;
  const of = (count) => known.speeds.find((s) => s.task === task() && s.steps === count && (!model || s.model === model));
  const speed = of(steps)?.seconds_per_megapixel ?? (steps ? (of(null)?.seconds_per_megapixel * steps) / 6 : undefined);
  if (!(speed >= 0)) return "Try a spot to learn how long the whole will take.";
  const seconds = speed * megapixels;
  return `The whole will take about ${seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`}.`;
}

const learn = async () => {
  known = await api.models();
  settingsChanged();
};

// --- images

// A picture of a file; what the browser cannot read, the server shows, on the range of values of the picture beside it.
async function picture(file, beside = null) {
  try {
    return await Picture.of(file, () => numbers(file));
  } catch {
    const { blob, range, exact } = await api.view(file, beside?.range);
    return Object.assign(await Picture.of(blob, async () => (exact ? readPng(blob) : null)), { range });
  }
}

// Of a PNG file that the page does not understand, the server makes a plain one.
async function numbers(file) {
  if (file.type !== "image/png") return readPixels(file);
  return (await readPng(file)) ?? readPng((await api.view(file)).blob);
}

async function add(files) {
  for (const file of files) {
    const item = { file, name: file.name || "pasted.png", state: "new", progress: 0, text: "", notes: [] };
    items.push(item);
    thumbnail(item);
    try {
      item.before = await picture(file);
    } catch (error) {
      Object.assign(item, { state: "failed", text: error.message });
    }
    paintThumbnail(item);
    if (!current || current.state === "failed") current = item;
    showCurrent();
  }
}

function thumbnail(item) {
  item.button = document.createElement("button");
  item.thumb = document.createElement("canvas");
  item.label = document.createElement("span");
  item.button.append(item.thumb, item.label);
  item.button.addEventListener("click", () => {
    current = item;
    showCurrent();
  });
  const row = document.createElement("li");
  row.append(item.button);
  get("queue").append(row);
}

function paintThumbnail(item) {
  const shown = item.after ?? item.before;
  if (!shown) return;
  const size = Math.min(240 / shown.width, 144 / shown.height);
  item.thumb.width = 240;
  item.thumb.height = 144;
  const width = shown.width * size, height = shown.height * size;
  shown.draw(item.thumb.getContext("2d"), (240 - width) / 2, (144 - height) / 2, width, height);
}

// --- work

function downloadName(item, type) {
  const stem = item.name.replace(/\.[^.]+$/, ""), given = item.name.slice(stem.length + 1);
  const known = EXTENSIONS[type] ?? ["png"];
  const suffix = SUFFIX[item.task] + (item.task === "upscale" ? item.options.scale : "");
  return `${stem}${suffix}.${known.includes(given.toLowerCase()) ? given : known[0]}`;
}

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
  paintThumbnail(item);
  showCurrent();
}

async function finish(item, report) {
  const blob = await api.result(item.job);
  await api.remove(item.job);
  item.after = await picture(blob, item.before);
  if (item.url) URL.revokeObjectURL(item.url);
  item.url = URL.createObjectURL(blob);
  const level = report.sigma === null ? "" : `, noise level ${report.sigma.toFixed(1)}${report.sigma_estimated ? " (estimated)" : ""}`;
  Object.assign(item, { state: "done", progress: 1, model: report.model, download: downloadName(item, blob.type) });
  item.text = `Done in ${report.seconds.toFixed(1)} s with ${report.model}${level}`;
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

async function trySpot({ x, y }) {
  const item = current, { width, height } = item.before;
  const side = { width: Math.min(SPOT, width), height: Math.min(SPOT, height) };
  const at = (middle, part, whole) => Math.round(Math.min(Math.max(middle - part / 2, 0), whole - part));
  const region = { x: at(x, side.width, width), y: at(y, side.height, height), ...side };
  item.text = "Trying a spot";
  showCurrent();
  try {
    const options = { ...settings(), region: [region.x, region.y, region.width, region.height].join(",") };
    const { blob, report } = await api.restoreNow(task(), item.file, options);
    item.preview = { picture: await picture(blob, item.before), region, strength: options.strength };
    item.model = report.model;
    item.text = `A spot of ${region.width}x${region.height} in ${report.seconds.toFixed(1)} s; approximate at its edge`;
    await learn();
  } catch (error) {
    item.text = error.message;
  }
  showCurrent();
}

// --- what is shown

function showCurrent() {
  const item = current, busy = item?.state === "queued" || item?.state === "running";
  for (const one of items) {
    one.button.setAttribute("aria-pressed", one === item);
    one.label.textContent = one.state === "running" ? `${Math.round(100 * one.progress)}% ${one.name}` : `${one.state === "done" ? "✓ " : one.state === "failed" ? "✗ " : ""}${one.name}`;
  }
  const ready = items.filter((one) => one.before && one.state !== "queued" && one.state !== "running");
  get("restore").disabled = !item?.before || busy;
  get("all").hidden = items.length < 2;
  get("all").disabled = !ready.length;
  get("cancel").hidden = !busy;
  get("progress").hidden = !busy;
  get("progress").value = item?.progress ?? 0;
  get("try").disabled = !item?.before || busy;
  const preview = item?.preview, after = preview?.picture ?? item?.after ?? null;
  showDownload(item);
  get("estimate").textContent = estimate();
  const turned = strengthNow(item);
  get("status").textContent = (item?.text ?? "") + (turned === null || turned === 1 ? "" : ". The view follows the strength; restore again to download it.");
  get("notes").replaceChildren(...(item?.notes ?? []).map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  const labels = ["Before", preview ? "After: a spot, approximate at its edge" : "After"];
  viewer.show({ before: item?.before, after, region: preview?.region, opacity: turned ?? 1, labels });
}

// The share of the change to show when the strength was turned down after the work: what is shown is linear in it.
function strengthNow(item) {
  const made = item?.preview ? item.preview.strength : item?.after ? item.options.strength : null;
  if (!made || task() === "upscale") return null;
  return Math.min(1, get("strength").value / 100 / made);
}

function showDownload(item) {
  const link = get("download");
  link.hidden = !item?.url || item.state !== "done";
  if (!link.hidden) Object.assign(link, { href: item.url, download: item.download });
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
get("all").addEventListener("click", () => items.forEach(restore));
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
  add([...event.dataTransfer.files]);
});

learn().catch((error) => (get("status").textContent = error.message));
