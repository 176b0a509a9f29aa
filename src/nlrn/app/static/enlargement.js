// How large a result shall be: a factor, or what fits within a width and a height.

const get = (id) => document.getElementById(id);
const within = () => get("scale").value === "within";
const side = (id) => (get(id).value.trim() === "" ? null : Number(get(id).value));

// Shows the fields of the choice that is made; a task that only enlarges has one, and another begins without.
export function arrange(task, isNew) {
  const none = get("scale").querySelector("[value='']");
  none.hidden = none.disabled = task === "upscale";
  if (task === "upscale" && get("scale").value === "") get("scale").value = "2";
  if (task === "restore" && isNew) get("scale").value = "";
  get("factor").hidden = get("scale").value !== "factor";
  get("sides").hidden = !within();
}

// The option of the server, none for the size as it is. It refuses what is no number, and says what it expects.
export function read() {
  if (get("scale").value === "") return {};
  if (!within()) return { scale: get("scale").value === "factor" ? get("factor").value || "none" : get("scale").value };
  const width = get("wide").value.trim(), height = get("high").value.trim();
  return width && height ? { fit: `${width}x${height}` } : { size: `${width}x${height}` };
}

// How many times larger a picture becomes, about; NaN where that is not known.
export function factor({ width, height }) {
  if (!within()) return Number(read().scale ?? 1);
  const ratios = [[side("wide"), width], [side("high"), height]].filter(([given]) => given !== null);
  return ratios.length ? Math.min(...ratios.map(([given, length]) => given / length)) : NaN;
}

// For the name of a result, as the command line has it.
export function suffix({ scale, size, fit }) {
  if (!scale && !size && !fit) return "";
  if (scale) return `-x${Number(scale)}`;
  if (fit) return `-fit${fit}`;
  return size.startsWith("x") ? `-${size.slice(1)}h` : `-${size.slice(0, -1)}w`;
}
