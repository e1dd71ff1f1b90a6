/** `docs/operating.md` as it is printed: its commands run in its order, and what they print is what it says. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { operated, until } from "./operated.ts";

const guide = readFileSync(join(import.meta.dirname, "../../docs/operating.md"), "utf8");

/** Commands of the guide with what it says they print. */
const commands = [...guide.matchAll(/```console\n(.*?)```/gs)].flatMap(([, block = ""]) =>
  block
    .split(/^\$ /m)
    .slice(1)
    .map((text) => {
      const end = text.indexOf("\n");
      return { command: text.slice(0, end), printed: text.slice(end + 1).trimEnd() };
    }),
);

/** Numbers and names that are others each time, in the places where they stand. */
function general(text: string): string {
  return text
    .replace(/\b\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?/g, (date) => "0000-00-00 00:00:00".slice(0, date.length))
    .replace(/\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, (id) => "u".repeat(id.length))
    .replace(/(?<=u\.)[\w-]{43}|(?<=\/setup\/|^|\s)[\w-]{43}(?=\s|$)/gm, (key) => "k".repeat(key.length))
    .replace(/^[\w-]{12}(?= {2}\S)/gm, (session) => "s".repeat(session.length))
    .replace(/127\.0\.0\.1:\d+/g, "127.0.0.1:7337")
    .replace(/[ \t]+$/gm, "")
    .trimEnd();
}

const words = (command: string) =>
  [...command.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain = ""]) => quoted ?? plain);

test("every command of the guide prints what the guide says", async () => {
  expect(commands.length).toBeGreaterThan(14);
  await using here = await operated();
  const { live } = here;
  const { client } = await live.tokens();

  for (const { command, printed } of commands) {
    const [, ...argv] = words(command.replace("http://127.0.0.1:7337", live.origin));
    if (argv.includes("--trail")) {
      const lost = {
        grant_type: "authorization_code",
        code: "gone",
        client_id: client,
        redirect_uri: "http://127.0.0.1:1/",
      };
      await fetch(`${live.origin}/oauth/token`, { method: "POST", body: new URLSearchParams(lost) });
      await until(async () => (await here.cli(argv)).stdout.includes("It stopped"));
    }
    const { stdout, stderr } = await here.cli(argv);
    expect(`$ ${command}\n${general(stdout)}`).toBe(`$ ${command}\n${general(printed)}`);
    expect(stderr).toBe("");
  }
});
