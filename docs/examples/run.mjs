// Sandrun from JavaScript, with nothing but fetch (Node 18 or newer, or a browser): docs/examples/README.md
const url = process.env.SANDRUN_URL ?? "http://localhost:8443";

async function ask(path, options) {
  const answer = await fetch(url + path, options);
  if (!answer.ok) throw new Error(`${answer.status}: ${(await answer.json()).reason}`);
  return answer;
}

const json = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

// Server-sent events, one after the other; lines that begin with a colon are signs of life.
async function* events(answer) {
  let text = "";
  for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data) yield JSON.parse(data.slice(6));
    }
  }
}

// 1. Code in, a result out.
const result = await (await ask("/run", json({ code: "print(6 * 7)", timeout: 10 }))).json();
console.log(result.stdout.trim(), result.verdict, result.exit_code);

// 2. Output while the program runs.
const live = json({ code: "for i in 1 2 3; do echo $i; sleep 0.05; done", interpreter: "bash" });
live.headers.Accept = "text/event-stream";
for await (const event of events(await ask("/run", live))) {
  if (event.type === "output") console.log(event.stream, event.data.trim());
  else console.log(event.type, event.verdict);
}

// 3. An upload, then the files that the program left.
const form = new FormData();
form.append("files", new Blob(["print(open('words.txt').read().upper(), file=open('out.txt', 'w'))"]), "main.py");
form.append("files", new Blob(["some words"]), "words.txt");
form.append("manifest", JSON.stringify({ entrypoint: "main.py" }));
const { job_id: job } = await (await ask("/submit", { method: "POST", body: form })).json();
let status;
do {
  status = await (await ask(`/status/${job}?wait=30`)).json();
} while (status.verdict === null);
const { details } = await (await ask(`/outputs/${job}`)).json();
for (const file of details) console.log(file.path, (await (await ask(file.download_url)).text()).trim());
await ask(`/jobs/${job}`, { method: "DELETE" });

// 4. Giving a request up cancels its program.
const hopeless = AbortSignal.timeout(300);
await ask("/run", { ...json({ code: "while True: pass" }), signal: hopeless }).catch((error) => console.log(error.name));
