// SPDX-License-Identifier: Apache-2.0

// What TestBench does: measures this browser's GPU, with keys and values in f16, shows it as the page does, and loads the model with the forms that were found.

import {Fromage} from "/fromage.js";
import {tables} from "/bench.js";

const tell = (step, what) => fetch(`/report?step=${encodeURIComponent(step)}`, {method: "POST", body: JSON.stringify(what)});
const load = (kernels, kv) => Fromage.load({model: "/models/default.bundle", kernels, kv});

async function run() {
  const f = await load("", "f16");
  const pieces = [];
  const report = await f.bench({tokens: 2, rows: 200, item: p => pieces.push(p)});
  await tell("bench", {report, pieces: pieces.length, text: tables(report).map(t => t.textContent).join("\n")});
  const text = await f.tune();
  f.close();
  const table = JSON.parse(text);
  // One class runs in another form in any case, whatever was measured.
  const {class: name, rule} = table.results[0];
  table.choices[name] = rule.includes("linear_block") ? rule.replace(/^linear_block(\.\w+).*/, "linear_row$1.group.ROWS4.TOKENS1") : rule;
  const answers = [];
  for (const kernels of ["", JSON.stringify(table), "nonsense"]) {
    const f = await load(kernels);
    const answer = [];
    for await (const {done} of f.generate("show me a beaver", {numWords: 8, ignoreEOS: true})) {
      answer.push(...(done?.ids ?? []));
    }
    answers.push({ids: answer, choices: (await f.info()).choices ?? {}});
    f.close();
  }
  await tell("tune", {table, answers});
}

run().then(() => tell("done", ""), error => tell("done", `${error.name}: ${error.message}\n${error.stack}`));
