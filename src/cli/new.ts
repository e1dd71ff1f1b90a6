/** `drawbridge new`: a server of one's own, with tests, that passes them and the check out of the box. */
import { existsSync } from "node:fs";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import { DrawbridgeError } from "../core/errors.ts";
import { version } from "./main.ts";
import { painter, type Terminal } from "./terminal.ts";

const HELP = `
Writes a server with one tool, its tests, and settings for the gateway. What is careless in it does not compile, or does not
start, and says where and why.

Examples:
  $ drawbridge new library
  $ cd library && npm install && npm test
  $ npm run dev                     (loaded anew on change, with a page to try its tools as each role)
  $ npx drawbridge serve            (inside the gateway: sign-in, roles, audit)
  $ node server.ts                  (alone, over stdio)
`;

export function define(command: Command, terminal: Terminal): void {
  command
    .argument("<folder>", "where to write it; its last part names the server")
    .addHelpText("after", HELP)
    .action((folder: string) => scaffold(folder, terminal));
}

async function scaffold(folder: string, terminal: Terminal): Promise<void> {
  const place = resolve(terminal.cwd, folder);
  const name = basename(place)
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]+/g, "-");
  if (!/^[a-z][a-z0-9-]{0,39}$/.test(name))
    throw new DrawbridgeError(
      "settings_invalid",
      `${JSON.stringify(basename(place))} names no server: begin with a letter, and use letters, digits and hyphens.`,
    );
  if (existsSync(place) && (await readdir(place)).length > 0)
    throw new DrawbridgeError("settings_invalid", `${place} is not empty. Name a new folder.`);
  for (const [file, text] of Object.entries(filesOf(name, version()))) {
    await mkdir(dirname(join(place, file)), { recursive: true });
    await writeFile(join(place, file), text, { flag: "wx" });
  }
  const paint = painter(terminal.stdout, terminal.env);
  terminal.stdout.write(`${paint("bold", `Wrote ${folder}`)}

  cd ${folder}
  npm install
  npm test                  its tools called as anybody, without a socket
  npm run dev               a page to try them as each role, loaded anew on change
  npm run check             the compiler, and the grade of its tools
  npx drawbridge serve      inside the gateway
`);
}

/** Packages that the files import, and this one does not. */
const AUTHOR = '"drawbridge-mcp/author"';
const ZOD = '"zod"';

/** What is written, by file. */
export function filesOf(name: string, release: string): Readonly<Record<string, string>> {
  return {
    "package.json": `${JSON.stringify(
      {
        name,
        version: "0.1.0",
        private: true,
        type: "module",
        engines: { node: ">=24.11" },
        scripts: {
          start: "node server.ts",
          dev: "drawbridge dev",
          test: "node --test",
          check: "tsc && drawbridge check --fail-on B drawbridge.yaml",
        },
        dependencies: { "drawbridge-mcp": release, zod: "4.6.7" },
        devDependencies: { "@types/node": "24.19.2", typescript: "7.0.2" },
      },
      null,
      2,
    )}\n`,
    "tsconfig.json": `${JSON.stringify(
      {
        compilerOptions: {
          target: "es2024",
          module: "nodenext",
          strict: true,
          noEmit: true,
          allowImportingTsExtensions: true,
          erasableSyntaxOnly: true,
          verbatimModuleSyntax: true,
          skipLibCheck: true,
          types: ["node"],
        },
        include: ["*.ts"],
      },
      null,
      2,
    )}\n`,
    ".gitignore": "node_modules/\n.drawbridge/\n",
    "README.md": readme(name),
    "drawbridge.yaml": `# What the tools take, give and may stands beside their handlers, in server.ts. Here is who may call them.
store: sqlite:./.drawbridge/drawbridge.db

servers:
  ${name}: { module: ./server.ts }

roles:
  owner:
    may: ["*"]
  reader:
    may: ["access:read"]

assign:
  - { role: owner, group: owner }
  - { role: reader, group: reader }
`,
    "server.ts": `/** A server whose tools cannot be used for anything else. Alone over stdio: node server.ts. */
import { refuse, server, tool } from ${AUTHOR};
import { z } from ${ZOD};

/** Stands for the system behind the server. */
const books = new Map([
  ["978-0141439518", { isbn: "978-0141439518", title: "Pride and Prejudice", copies: 3, shelf_code: "A-17" }],
  ["978-0141441146", { isbn: "978-0141441146", title: "Jane Eyre", copies: 0, shelf_code: "A-21" }],
]);

const lookUpBook = tool({
  name: "look_up_book",
  title: "Look up a book",
  description: {
    does: "Shows one book of the library and how many copies are there.",
    useWhen: "when somebody asks for a book whose ISBN they know",
    notWhen: "to search by title or author",
    returns: "the title and the number of copies",
    limits: "one book at a time",
  },
  input: z.object({
    isbn: z.string().regex(/^978-[0-9]{10}$/).describe("The book's ISBN, e.g. 978-0141439518."),
  }),
  // Only this leaves: where the book stands is not in it.
  output: z.object({ isbn: z.string(), title: z.string(), copies: z.int() }),
  access: "read",
  handler: ({ isbn }) => books.get(isbn) ?? refuse("The library does not have this book."),
});

export const ${camel(name)} = server({ name: "${name}", version: "0.1.0", tools: [lookUpBook] });

if (import.meta.main) await ${camel(name)}.stdio();
`,
    "server.test.ts": `import assert from "node:assert/strict";
import { test } from "node:test";
import { as, ToolRefused } from ${AUTHOR};
import { ${camel(name)} } from "./server.ts";

const ann = as(${camel(name)}, { subject: "ann", groups: ["reader"] });

test("a book is found by its number, and only what was declared leaves", async () => {
  assert.deepEqual(await ann.call("look_up_book", { isbn: "978-0141439518" }), {
    isbn: "978-0141439518",
    title: "Pride and Prejudice",
    copies: 3,
  });
});

test("what is no ISBN is refused, and so is what nobody declared", async () => {
  await assert.rejects(ann.call("look_up_book", { isbn: "' OR 1=1 --" }), ToolRefused);
  await assert.rejects(ann.call("look_up_book", { isbn: "978-0141439518", verbose: true }), /verbose/);
});
`,
  };
}

function readme(name: string): string {
  return `# ${name}

A server for MCP clients, written with \`drawbridge-mcp/author\`: what a tool takes, gives and may stands beside what it does. What is
careless does not compile, or does not start, and says where and why.

    npm install
    npm test                # its tools called as anybody, without a socket
    npm run dev             # a page to try them as each role, loaded anew on change
    npm run check           # the compiler, and the grade of its tools: A, or it fails

| file | what it is |
| --- | --- |
| \`server.ts\` | the tools; \`books\` stands for the system behind them |
| \`server.test.ts\` | what each does, and what it refuses |
| \`drawbridge.yaml\` | who may call them, when it is served to others |

## Serve it

To others, with sign-in, roles and a record of each call: \`npx drawbridge serve\`. It prints the address for clients, and a link that makes
your account. The group \`owner\` may all, the group \`reader\` what only reads.

To yourself alone, by a client that starts it:

\`\`\`json
{ "mcpServers": { "${name}": { "command": "node", "args": ["/path/to/${name}/server.ts"] } } }
\`\`\`
`;
}

/** A name as a constant of JavaScript; one that would be a word of the language gets another. */
function camel(name: string): string {
  return `${name.replaceAll(/-+([a-z0-9])/g, (_, letter: string) => letter.toUpperCase()).replace(/-+$/, "")}Server`;
}
