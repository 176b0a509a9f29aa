// Pictures for the slider, with the numbers of their pixels as the files have them.

// A picture to draw, and the numbers of its pixels, which are read when they are first asked for.
export class Picture {
  #smaller = [];
  #read;
  #reading = null;

  constructor(bitmap, read) {
    this.bitmap = bitmap;
    this.width = bitmap.width;
    this.height = bitmap.height;
    this.pixels = null;
    this.#read = read;
  }

  static async of(blob, read = () => readPixels(blob)) {
    return new Picture(await createImageBitmap(blob), read);
  }

  read() {
    const none = { channels: 0, data: new Uint8Array() };
    return (this.#reading ??= this.#read().catch(() => null).then((pixels) => (this.pixels = pixels ?? none)));
  }

  // Null while they are not read, and empty where there are none.
  values(x, y) {
    if (!this.pixels) return null;
    const { channels, data } = this.pixels, start = (y * this.width + x) * channels;
    return [...data.subarray(start, start + channels)];
  }

  draw(context, left, top, width, height) {
    let source = this.bitmap;
    for (let level = 0; source.width >= 2 * width && source.width > 64; level++) source = this.#smaller[level] ??= half(source);
    context.drawImage(source, left, top, width, height);
  }
}

function half(picture) {
  const canvas = new OffscreenCanvas(Math.ceil(picture.width / 2), Math.ceil(picture.height / 2));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
}

// The numbers in a file, { channels, data } row by row: those that a PNG file stores, else those that the browser sees.
export async function readPixels(blob) {
  return (await readPng(blob)) ?? readBack(blob);
}

async function readBack(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) return { channels: 4, data };
  const opaque = new Uint8Array((data.length / 4) * 3);
  for (let i = 0, j = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) opaque[j++] = data[i + c];
  return { channels: 3, data: opaque };
}

// Floats, which no PNG file holds, in the bytes of one: in each row the first byte of each number, then the second ones.
export async function readFloats(blob, width, channels) {
  const { data } = await readPng(blob), row = width * channels, bytes = new Uint8Array(data.length);
  for (let from = 0; from < data.length; from += 4 * row) {
    for (let byte = 0; byte < 4; byte++) {
      for (let i = 0; i < row; i++) bytes[from + 4 * i + byte] = data[from + byte * row + i];
    }
  }
  return { channels, data: new Float32Array(bytes.buffer) };
}

// Null for what is no PNG file, and for one with a palette, interlaced, or to be turned. A browser shows 8 of 16 bits.
export async function readPng(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer()), view = new DataView(bytes.buffer), parts = [];
  if (bytes.length < 33 || view.getUint32(0) !== 0x89504e47) return null;
  const width = view.getUint32(16), height = view.getUint32(20), depth = bytes[24], channels = { 0: 1, 2: 3, 4: 2, 6: 4 }[bytes[25]];
  if (!channels || depth < 8 || bytes[28]) return null;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at), kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === "eXIf") return null;
    if (kind === "IDAT") parts.push(bytes.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(stream).arrayBuffer());
  const plain = await unfilter(raw, height, (width * channels * depth) / 8, (channels * depth) / 8);
  if (depth === 8) return { channels, data: plain };
  for (let i = 0; i < plain.length; i += 2) [plain[i], plain[i + 1]] = [plain[i + 1], plain[i]];
  return { channels, data: new Uint16Array(plain.buffer) };
}

// PNG specification, section 9: each row is preceded by the number of its filter; `step` is the bytes of a pixel.
async function unfilter(raw, height, row, step) {
  const plain = new Uint8Array(height * row);
  let pause = performance.now() + 30;
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (row + 1)], from = y * (row + 1) + 1, to = y * row;
    for (let i = 0; i < row; i++) {
      const left = i < step ? 0 : plain[to + i - step];
      const up = y ? plain[to + i - row] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else if (filter === 4) {
        const corner = y && i >= step ? plain[to + i - row - step] : 0;
        const a = Math.abs(up - corner), b = Math.abs(left - corner), c = Math.abs(left + up - 2 * corner);
        guess = a <= b && a <= c ? left : b <= c ? up : corner;
      }
      plain[to + i] = raw[from + i] + guess;
    }
    if (performance.now() > pause) {
      await new Promise((resume) => setTimeout(resume)); // the page stays alive
      pause = performance.now() + 30;
    }
  }
  return plain;
}
