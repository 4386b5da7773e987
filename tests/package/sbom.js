// SPDX-License-Identifier: Apache-2.0
// Judges a bill of materials by the schema of CycloneDX 1.5, strictly. Argument: the file. Exit status 1: it has faults.
"use strict";
const fs = require("fs");
const { Spec, Validation } = require("@cyclonedx/cyclonedx-library");

new Validation.JsonStrictValidator(Spec.Version.v1dot5).validate(fs.readFileSync(process.argv[2], "utf8")).then((faults) => {
  if (faults === null) return;
  console.error(faults);
  process.exit(1);
});
