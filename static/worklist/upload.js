// Sends files one by one, each with its own progress and answer; two at a time, so that a slow one holds up no other.

const AT_ONCE = 2;

export function bindUpload(form, results, drop) {
  const queue = [];
  let running = 0;

  function add(files) {
    if (!files.length) return;
    results.hidden = false;
    if (!running && !queue.length) clear(results);
    for (const file of files) queue.push([file, line(results, file.name)]);
    while (running < AT_ONCE && queue.length) next();
  }

  function next() {
    const [file, shown] = queue.shift();
    running += 1;
    send(form.dataset.upload, file, shown).finally(() => {
      running -= 1;
      if (queue.length) next();
      else if (!running) done(results);
      window.htmx?.trigger("#_worklist", "refresh");
    });
  }

  form.addEventListener("submit", (event) => {
    const input = form.querySelector("input[type=file]");
    if (!input.files.length) return;
    event.preventDefault();
    add([...input.files]);
    form.reset();
  });
  bindDrop(drop, add);
}

function bindDrop(drop, add) {
  let depth = 0; // dragenter and dragleave come for every element on the way
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const show = (visible) => {
    drop.hidden = !visible;
  };
  document.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth += 1;
    show(true);
  });
  document.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  document.addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth = Math.max(0, depth - 1);
    show(depth > 0);
  });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    add([...event.dataTransfer.files]);
  });
}

function send(address, file, shown) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest(); // fetch cannot tell how much has been sent
    request.open("POST", address);
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) shown.progress.value = event.loaded / event.total;
    });
    request.addEventListener("load", () => {
      answer(shown, request.response);
      resolve();
    });
    request.addEventListener("error", () => {
      refuse(shown, "The server could not be reached; the file was not sent whole.");
      resolve();
    });
    const body = new FormData();
    body.append("file", file);
    request.send(body);
  });
}

function answer(shown, response) {
  const result = response?.results?.[0];
  if (!result) {
    refuse(shown, response?.detail ?? "The server gave no reason.");
    return;
  }
  shown.progress.remove();
  shown.what.textContent = result.duplicate ? "= here already" : "✓ taken";
  const link = document.createElement("a");
  link.href = result.url;
  link.textContent = result.duplicate ? "Open the study that it belongs to" : "Open";
  shown.item.append(" ", link);
  if (!result.predicted) note(shown, "A lateral view is kept and shown, but not read.");
}

function refuse(shown, reason) {
  shown.progress.remove();
  shown.what.textContent = "✕ refused";
  shown.item.dataset.refused = "";
  note(shown, reason);
}

function note(shown, text) {
  const why = document.createElement("span");
  why.className = "why";
  why.textContent = text;
  shown.item.append(" ", why);
}

function line(results, name) {
  const item = document.createElement("li");
  const what = document.createElement("span");
  what.className = "what";
  what.textContent = "… sending";
  const title = document.createElement("strong");
  title.textContent = name;
  const progress = document.createElement("progress");
  progress.max = 1;
  progress.value = 0;
  progress.setAttribute("aria-label", `Sending ${name}`);
  item.append(what, " ", title, " ", progress);
  results.querySelector("ul").append(item);
  return { item, what, progress };
}

function clear(results) {
  results.classList.remove("bad");
  results.querySelector("ul").replaceChildren();
  results.querySelector(".results-head").textContent = "";
}

function done(results) {
  const all = results.querySelectorAll("li").length;
  const refused = results.querySelectorAll("li[data-refused]").length;
  results.classList.toggle("bad", refused > 0);
  const files = (count) => `${count} file${count === 1 ? " was" : "s were"}`;
  const head = refused ? `${files(refused)} not taken, of ${all}.` : `${files(all)} received.`;
  results.querySelector(".results-head").textContent = head;
}
