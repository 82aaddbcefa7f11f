// A job's whole round through the types that openapi-typescript makes of docs/openapi.json.
// Arguments: the address of the service, a file to submit. Prints what came of it as JSON.
import { readFileSync } from "node:fs";

import createClient from "openapi-fetch";

import type { components, paths } from "./sandrun.js";

type Manifest = components["schemas"]["Manifest"];
type Status = components["schemas"]["JobStatus"];

const [baseUrl, file] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl });

function must<Data>(step: string, answer: { data?: Data; error?: unknown }): Data {
  if (answer.data === undefined) throw new Error(`${step}: ${JSON.stringify(answer.error)}`);
  return answer.data;
}

async function submit(manifest: Manifest, path: string): Promise<string> {
  const answer = await client.POST("/submit", {
    body: { files: [readFileSync(path, "utf8")], manifest },
    bodySerializer: ({ files, manifest }) => {
      const form = new FormData();
      form.append("manifest", JSON.stringify(manifest));
      for (const text of files) form.append("files", new Blob([text]), manifest?.entrypoint);
      return form;
    },
  });
  return must("submit", answer).job_id;
}

async function finished(job_id: string): Promise<Status> {
  for (;;) {
    const answer = await client.GET("/status/{job_id}", {
      params: { path: { job_id }, query: { wait: 30 } },
    });
    const status = must("status", answer);
    if (status.status === "completed" || status.status === "failed") return status;
  }
}

const job_id = await submit({ entrypoint: "main.py", interpreter: "python3" }, file);
const status = await finished(job_id);
const logs = must("logs", await client.GET("/logs/{job_id}", { params: { path: { job_id } } }));
if (typeof logs === "string") throw new Error("logs: text instead of JSON");
const listed = must("outputs", await client.GET("/outputs/{job_id}", { params: { path: { job_id } } }));

const files: Record<string, string> = {};
for (const path of listed.files) {
  const answer = await client.GET("/download/{job_id}/{path}", {
    params: { path: { job_id, path } },
    parseAs: "arrayBuffer",
  });
  files[path] = Buffer.from(must("download", answer)).toString("base64");
}

const deleted = await client.DELETE("/jobs/{job_id}", { params: { path: { job_id } } });
const unknown = await client.GET("/status/{job_id}", { params: { path: { job_id } } });
console.log(
  JSON.stringify({
    exit_code: status.exit_code,
    verdict: status.verdict,
    stdout: logs.stdout,
    files,
    deleted: deleted.response.status,
    unknown: unknown.error?.status,
  }),
);
