// Results as files: their names, as the command line gives them, and a ZIP file of many.

const EXTENSIONS = { "image/jpeg": ["jpg", "jpeg"], "image/png": ["png"], "image/tiff": ["tif", "tiff"], "image/webp": ["webp"], "image/bmp": ["bmp"], "image/avif": ["avif"], "image/jxl": ["jxl"], "image/fits": ["fits", "fit", "fts"] };

export function resultName(name, type, suffix) {
  const stem = name.replace(/\.[^.]+$/, ""), given = name.slice(stem.length + 1);
  const known = EXTENSIONS[type] ?? ["png"];
  return `${stem}${suffix}.${known.includes(given.toLowerCase()) ? given : known[0]}`;
}

// Files of one name, which came from different folders, get numbers.
export function distinct(names) {
  const taken = new Set();
  return names.map((name) => {
    const [, stem, extension] = name.match(/^(.*?)(\.[^.]*)?$/);
    let free = name;
    for (let number = 2; taken.has(free.toLowerCase()); number++) free = `${stem}-${number}${extension ?? ""}`;
    taken.add(free.toLowerCase());
    return free;
  });
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
  return byte;
});

// Chunk by chunk, so that no more than one lies in memory.
async function checksum(blob) {
  let crc = -1;
  const reader = blob.stream().getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    for (const byte of part.value) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  }
  return ~crc >>> 0;
}

const LIMIT = 2 ** 32 - 1;

// A ZIP file of { name, blob }, stored without compression, which images have had. The browser streams the blobs into
// it. Source: PKWARE, APPNOTE.TXT, sections 4.3 and 4.4.
export async function zip(files) {
  const names = distinct(files.map(({ name }) => name)).map((name) => new TextEncoder().encode(name));
  const parts = [], directory = [];
  let offset = 0, length = 0;
  for (const [i, { blob }] of files.entries()) {
    if (offset + blob.size > LIMIT) throw new Error("A ZIP file holds at most 4 GB; download the results one by one.");
    const about = [20, 0x0800, 0, 0, 0x21]; // version, names in UTF-8, stored, 1 January 1980
    const sizes = [await checksum(blob), blob.size, blob.size];
    const local = record(0x04034b50, [...about], sizes, [names[i].length, 0]);
    const central = record(0x02014b50, [20, ...about], sizes, [names[i].length, 0, 0, 0, 0], [0, offset]);
    parts.push(local, names[i], blob);
    directory.push(central, names[i]);
    offset += local.length + names[i].length + blob.size;
    length += central.length + names[i].length;
  }
  const end = record(0x06054b50, [0, 0, files.length, files.length], [length, offset], [0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

// A signature, then numbers of 2 and 4 bytes by turns.
function record(signature, ...groups) {
  const bytes = groups.flatMap((group, i) => group.flatMap((number) => littleEndian(number, i % 2 ? 4 : 2)));
  return Uint8Array.from([...littleEndian(signature, 4), ...bytes]);
}

const littleEndian = (number, count) => Array.from({ length: count }, (_, i) => Math.floor(number / 256 ** i) % 256);
