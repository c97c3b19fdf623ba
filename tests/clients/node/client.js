// Node, with @grpc/grpc-js and the contract loaded at run time: `node client.js ADDRESS PROTO_FOLDER`.
"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");
const { createRequire } = require("node:module");

// The packages lie where the checks install them, not beside this file.
const load = createRequire(path.join(process.env.NODE_HOME, "package.json"));
const grpc = load("@grpc/grpc-js");
const protoLoader = load("@grpc/proto-loader");

const [address, protoFolder] = process.argv.slice(2);
const options = { includeDirs: [protoFolder], keepCase: true, longs: String, enums: String, defaults: false };
const files = ["epochd/v1/model_service.proto", "epochd/v1/job_service.proto", "epochd/v1/admin_service.proto"];
const { epochd } = grpc.loadPackageDefinition(protoLoader.loadSync(files, options));
const credentials = grpc.credentials.createInsecure();
const models = new epochd.v1.ModelService(address, credentials);
const jobs = new epochd.v1.JobService(address, credentials);

const call = (client, method, request) =>
  new Promise((resolve, reject) => {
    client[method](request, (error, answer) => (error ? reject(error) : resolve(answer)));
  });

async function main() {
  const corners = [0, 0, 0, 1, 1, 0, 1, 1];
  const xor = [0, 1, 1, 0];
  const layers = [
    { units: 8, activation: "ACTIVATION_TANH" },
    { units: 1, activation: "ACTIVATION_SIGMOID" },
  ];
  const model = await call(models, "CreateModel", { architecture: { input_width: 2, layers }, seed: "7" });
  const model_id = model.model_id;

  const training = models.Train({ model_id, inputs: { values: corners }, targets: { values: xor } });
  const epochs = [];
  let finished;
  for await (const event of training) {
    for (const report of event.epochs?.reports ?? []) epochs.push(report.epoch);
    finished = event.finished ?? finished;
  }
  assert.deepEqual(epochs, Array.from({ length: 2000 }, (_, index) => index + 1));
  assert.equal(finished.state, "JOB_STATE_SUCCEEDED");

  const packed = Buffer.from(new Float32Array(corners).buffer);
  const answer = await call(models, "Predict", { model_id, inputs: { packed } });
  assert.deepEqual(answer.classes.map((row) => row.index), xor);
  assert.equal(answer.outputs.packed.length, 16);
  const weights = await call(models, "GetWeights", { model_id });
  assert.equal(weights.layers[0].weights.values.length, 16);

  const rows = 4096;
  const values = (length, value) => ({ values: Array.from({ length }, (_, index) => value(index)) });
  const endless = models.Train({
    model_id,
    inputs: values(2 * rows, (index) => (index % 7) / 7),
    targets: values(rows, (index) => index % 2),
    epochs: 1000000,
  });
  let job_id;
  for await (const event of endless) {
    if (event.epochs && !job_id) {
      job_id = event.job_id;
      const job = await call(jobs, "CancelJob", { job_id, commit: true });
      assert.deepEqual([job.state, job.version], ["JOB_STATE_CANCELLED", 3]);
    }
  }

  await assert.rejects(call(models, "GetModel", { model_id: "nobody" }), { code: grpc.status.NOT_FOUND });
  const bad = { architecture: { input_width: 2, layers: [{ units: 0 }] } };
  await assert.rejects(call(models, "CreateModel", bad), (error) => {
    assert.equal(error.code, grpc.status.INVALID_ARGUMENT);
    assert.match(error.details, /architecture\.layers\[0\]\.units/);
    assert.equal(error.metadata.get("grpc-status-details-bin").length, 1);
    return true;
  });
  models.close();
  jobs.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
