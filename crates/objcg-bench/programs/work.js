// JSON, maps, buffers and worker threads, from a fixed generator; prints what came out as one digest.
"use strict";
const { createHash } = require("node:crypto");
const { deflateSync, inflateSync } = require("node:zlib");
const { Worker, isMainThread, parentPort, workerData } = require("node:worker_threads");

const NR_WORKERS = 2;
const NR_ROUNDS = 3;
const NR_RECORDS = 15000;

function generator(seed) {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >>> 8) % limit;
  };
}

function word(number) {
  let text = "";
  for (let left = 2 + number(20); left > 0; left--) text += String.fromCharCode(97 + number(26));
  return text;
}

function round(number) {
  const records = [];
  for (let id = 0; id < NR_RECORDS; id++) {
    records.push({ id, name: word(number), tags: [word(number), word(number)], price: number(100000) / 100 });
  }
  const text = JSON.stringify(records);
  const byTag = new Map();
  for (const record of JSON.parse(text)) {
    for (const tag of record.tags) byTag.set(tag.slice(0, 3), (byTag.get(tag.slice(0, 3)) ?? 0) + record.price);
  }
  const chunks = [];
  for (let at = 0; at < text.length; ) {
    const end = at + 64 + number(16000);
    chunks.push(Buffer.from(text.slice(at, end)));
    at = end;
  }
  const packed = chunks.map((chunk) => deflateSync(chunk, { level: 3 }));
  const whole = Buffer.concat(packed.map((chunk) => inflateSync(chunk)));
  if (whole.toString() !== text) throw new Error("what was packed is not what came out");
  return JSON.stringify([...byTag].sort()) + whole.length;
}

function digest(seed) {
  const number = generator(seed);
  const hash = createHash("sha256");
  for (let nr = 0; nr < NR_ROUNDS; nr++) hash.update(round(number));
  return hash.digest("hex");
}

function inWorker(seed) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(__filename, { workerData: seed });
    worker.on("message", resolve);
    worker.on("error", reject);
  });
}

async function main() {
  const seeds = Array.from({ length: NR_WORKERS }, (_, nr) => nr + 2);
  const others = Promise.all(seeds.map(inWorker));
  const own = digest(1);
  console.log([own, ...(await others)].join("\n"));
}

if (isMainThread) {
  main();
} else {
  parentPort.postMessage(digest(workerData));
}
