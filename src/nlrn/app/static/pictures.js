// Pictures of files, with the help of the server for those that the browser does not read.

import * as api from "./api.js";
import { Picture, readFloats, readPixels, readPng } from "./pixels.js";

// What the server shows is on the range of values of the picture beside it.
export async function pictureOf(file, beside = null) {
  try {
    return await Picture.of(file, () => numbersOf(file));
  } catch {
    const { blob, range, exact } = await api.view(file, beside?.range);
    const picture = await Picture.of(blob, () => (exact ? readPng(blob) : fromServer(file, picture.width)));
    return Object.assign(picture, { range });
  }
}

async function numbersOf(file) {
  if (file.type !== "image/png") return readPixels(file);
  return (await readPng(file)) ?? fromServer(file); // with a palette, interlaced or to be turned
}

async function fromServer(file, width) {
  const { blob, floats } = await api.numbers(file);
  return floats ? readFloats(blob, width, floats) : readPng(blob);
}
