// SPDX-License-Identifier: Apache-2.0
// Reads manifests of Kubernetes (arguments: files). Each object is validated by the schema of its kind. Standard output:
// the objects as JSON. `TYPES` names a file to write: a program in TypeScript that gives every object its type, so that
// the compiler finds keys that the kind does not have.
"use strict";
const fs = require("fs");
const yaml = require("yaml");

const objects = [];
const lines = [];
let faults = 0;
for (const file of process.argv.slice(2)) {
  for (const document of yaml.parseAllDocuments(fs.readFileSync(file, "utf8"), { version: "1.1", uniqueKeys: true })) {
    for (const fault of [...document.errors, ...document.warnings]) {
      console.error(`${file}: ${fault.message}`);
      ++faults;
    }
    const object = document.toJS();
    const module = `kubernetes-models/${object.apiVersion}/${object.kind}`;
    try {
      const kind = require(module)[object.kind];
      new kind(object).validate();
    } catch (fault) {
      console.error(`${file}: ${object.kind} ${object.metadata.name}: ${fault.message}`);
      ++faults;
    }
    lines.push(`import type { I${object.kind} as T${objects.length} } from "${module}";`);
    lines.push(`export const object${objects.length}: T${objects.length} = ${JSON.stringify(object, null, 1)};`);
    objects.push(object);
  }
}
fs.writeFileSync(process.env.TYPES, lines.join("\n") + "\n");
console.log(JSON.stringify(objects));
process.exit(faults === 0 ? 0 : 1);
