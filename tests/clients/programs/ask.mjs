// Asks a transformer for a decision, with fetch: node ask.mjs URL < record.json
import { text } from "node:stream/consumers";

const url = process.argv[2];
const record = JSON.parse(await text(process.stdin));
const { models } = await (await fetch(`${url}/v2/models`)).json();
const answer = await fetch(`${url}/v1/models/${models[0]}:predict`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ instances: [record] }),
});
const content = await answer.json();
if (!answer.ok) throw new Error(content.error);
console.log(JSON.stringify(content.predictions[0]));
