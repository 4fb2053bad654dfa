// The console: asks the API of this server and shows what it says. No library, nothing stored but the token of this tab.
"use strict";

const $ = (id) => document.getElementById(id);
let selected = null;
let last = null;
let picture = null;

function token() {
  return sessionStorage.getItem("token") || "";
}

async function ask(path) {
  const headers = token() ? { Authorization: "Bearer " + token() } : {};
  const answer = await fetch(path, { headers });
  $("door").hidden = answer.status !== 401 && !token();
  if (!answer.ok) throw new Error(path + ": " + answer.status);
  return answer;
}

// Text only, ever: what peers sent is never taken for HTML.
function row(cells, click) {
  const line = document.createElement("tr");
  for (const [text, kind] of cells.map((c) => (Array.isArray(c) ? c : [c, ""]))) {
    const cell = document.createElement("td");
    cell.textContent = text === null || text === undefined ? "" : String(text);
    cell.className = kind;
    line.append(cell);
  }
  if (click) line.addEventListener("click", click);
  return line;
}

function fill(id, rows) {
  $(id).replaceChildren(...rows);
}

async function status() {
  const ready = await fetch("ready");
  const what = await ready.json();
  $("ready").textContent = what.ready ? "ready" : "not ready: " + (what.reasons || []).join(", ");
  const state = await (await ask("api/status")).json();
  $("node").textContent = `${state.node} ${state.version}, profile ${state.profile}, up ${state.uptime} s`;
  fill("neighbours", state.neighbours.map((n) =>
    row([n.name, [n.state, n.state === "up" ? "good" : n.state === "down" ? "bad" : ""], n.address, n.last_error])));
}

async function rates() {
  const text = await (await fetch("metrics")).text();
  const sums = {};
  for (const line of text.split("\n")) {
    const sample = /^([a-z_]+)(?:\{(.*)\})? ([-+0-9.eE]+)$/.exec(line);
    if (!sample) continue;
    const side = /direction="(\w+)"/.exec(sample[2] || "");
    const name = sample[1] + (side ? " " + side[1] : "");
    sums[name] = (sums[name] || 0) + Number(sample[3]);
  }
  const now = { time: performance.now(), sums };
  const rate = (name) => {
    if (!last) return "";
    const seconds = (now.time - last.time) / 1000;
    return (((sums[name] || 0) - (last.sums[name] || 0)) / seconds).toFixed(1) + "/s";
  };
  fill("rates", [
    row(["Pages", rate("pagecast_pages_total")]),
    row(["Recipients", rate("pagecast_recipients_total")]),
    row(["SIP in", rate("pagecast_sip_messages_total in")]),
    row(["SIP out", rate("pagecast_sip_messages_total out")]),
    row(["MSRP octets in", rate("pagecast_msrp_bytes_total in")]),
    row(["MSRP octets out", rate("pagecast_msrp_bytes_total out")]),
    row(["Resident memory", Math.round((sums.process_resident_memory_bytes || 0) / 1048576) + " MiB"]),
  ]);
  last = now;
}

async function pages() {
  const query = new URLSearchParams({ limit: "50", state: $("state").value, user: $("user").value.trim() });
  const list = await (await ask("api/pages?" + query)).json();
  fill("pages", list.pages.map((p) =>
    row([p.time.slice(11, 23), p.id, p.originator, p.target, p.size, p.state, p.recipients.delivered,
      [p.recipients.failed, p.recipients.failed ? "bad" : ""], p.recipients.pending], () => show(p.id))));
}

async function show(id) {
  selected = id;
  const page = await (await ask("api/pages/" + id)).json();
  $("detail").hidden = false;
  $("id").textContent = id;
  fill("recipients", page.recipients.map((r) =>
    row([r.uri, [r.state, r.state === "delivered" ? "good" : r.state === "failed" ? "bad" : ""],
      r.cause ? `${r.cause.protocol} ${r.cause.code || ""} ${r.cause.text}` : "", r.attempts, r.bytes,
      r.started && r.started.slice(11, 23), r.ended && r.ended.slice(11, 23)])));
  const drawing = await (await ask(`api/pages/${id}/flow.svg`)).blob();
  if (picture) URL.revokeObjectURL(picture);
  picture = URL.createObjectURL(drawing);
  $("flow").src = picture;
}

async function capture(event) {
  event.preventDefault();
  const file = await (await ask(`api/pages/${selected}/flow.pcapng`)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = `page-${selected}.pcapng`;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function turn() {
  try {
    await status();
    await rates();
    await pages();
  } catch (error) {
    $("ready").textContent = error.message;
  }
  setTimeout(turn, 2000);
}

$("token").addEventListener("change", () => sessionStorage.setItem("token", $("token").value));
$("state").addEventListener("change", () => pages().catch(() => {}));
$("user").addEventListener("change", () => pages().catch(() => {}));
$("capture").addEventListener("click", (event) => capture(event).catch(() => {}));
turn();
