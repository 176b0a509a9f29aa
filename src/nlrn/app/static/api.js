// The HTTP API, by addresses relative to the page, so that it works under any prefix.

const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has("token")) {
  sessionStorage.setItem("nlrn-token", fragment.get("token"));
  history.replaceState(null, "", location.pathname); // not to be copied with the address
}

async function call(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem("nlrn-token");
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The server does not answer.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Error(describe(body.error, response.status));
}

export function describe(error, status) {
  if (!error) return `The server answered with status ${status}.`;
  if (error.status === 401) return "The server asks for a token: open the page with #token=... at its address.";
  const expected = error.expected ? ` (expected: ${error.expected}${error.got ? `; got: ${error.got}` : ""})` : "";
  return error.message + expected;
}

export const models = async () => (await call("v1/models")).json();

const query = (options) => {
  const given = Object.entries(options).filter(([, value]) => value !== "" && value != null);
  return new URLSearchParams(given).toString();
};

// A PNG file of what a file shows; `range` has the values of black and white, and `exact` says if its numbers are the file's.
export async function view(file, range = null) {
  const response = await call(`v1/view?${query({ range })}`, { method: "POST", body: file }), { headers } = response;
  return { blob: await response.blob(), range: headers.get("nlrn-range"), exact: headers.get("nlrn-exact") === "1" };
}

// A PNG file with the numbers of a file; `floats` is the number of channels if they are the bytes of floats, else 0.
export async function numbers(file) {
  const response = await call("v1/view?numbers=1", { method: "POST", body: file });
  return { blob: await response.blob(), floats: Number(response.headers.get("nlrn-floats")) };
}

export async function restoreNow(task, file, options, signal) {
  const response = await call(`v1/${task}?${query(options)}`, { method: "POST", body: file, signal });
  return { blob: await response.blob(), report: JSON.parse(response.headers.get("nlrn-report")) };
}

// PSNR and SSIM of an image against a clean one, in a region of both, or of the clean one if the image is no larger.
export async function score(image, reference, region) {
  const body = new FormData();
  body.append("image", image, "image");
  body.append("reference", reference, "reference");
  return (await call(`v1/score?${query({ region: region.join(",") })}`, { method: "POST", body })).json();
}

export async function submit(task, file, options) {
  const headers = { Accept: "application/json" };
  return (await call(`v1/${task}?${query(options)}`, { method: "POST", body: file, headers })).json();
}

export const remove = (id) => call(`v1/jobs/${id}`, { method: "DELETE" });

export const result = async (id) => (await call(`v1/jobs/${id}/result`)).blob();

// Calls `changed` with each state of a job and returns the last one. EventSource could not send the token.
export async function follow(id, changed) {
  const reader = (await call(`v1/jobs/${id}/events`)).body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", job = null;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return job;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) changed((job = JSON.parse(data.slice(6))));
    }
  }
}
