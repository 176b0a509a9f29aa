// Pictures that stand in the page itself, in base64.

import { Picture, readFloats, readPixels } from "./pixels.js";

function take(id) {
  const text = atob(document.getElementById(id).textContent), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Blob([bytes], { type: "image/png" });
}

export async function open({ id, width, own, floats }) {
  const shown = take(id), values = own ? take(`${id}-values`) : shown;
  return Picture.of(shown, () => (floats ? readFloats(values, width, floats) : readPixels(values)));
}
