/** The bench's calls that are asked something count only when they were asked once and greeted by their own name. */
import { describe, expect, test } from "vitest";
import { Connection, type Endpoint, openSession, WRONG_ANSWER } from "../../bench/client.ts";
import { Dialogue } from "../../bench/dialogue.ts";
import { startFixture } from "../fixtures/processes.ts";

const ASKING = "test_input_required_result_elicitation";

async function called(
  revision: Endpoint["revision"],
  tool: string,
  calls = 1,
): Promise<readonly (string | undefined)[]> {
  const sessions = revision === "2025-11-25";
  await using server = await startFixture("everything/http", ["--era", sessions ? "legacy" : "modern"]);
  const port = Number(new URL(server.origin).port);
  const endpoint: Endpoint = { port, path: "/mcp", revision, sessions, tool, token: undefined, asks: true };
  const connection = new Connection(port, 10_000);
  const dialogue = new Dialogue(endpoint, connection, 10_000);
  try {
    const opened = sessions ? await openSession(connection, endpoint) : { session: undefined };
    if ("failed" in opened) throw new Error(opened.failed);
    const faults: (string | undefined)[] = [];
    for (let call = 1; call <= calls; call += 1) {
      faults.push(
        await new Promise((resolve) =>
          dialogue.call(call, `Ada-${call}`, opened.session, (_, wrong) => resolve(wrong)),
        ),
      );
    }
    return faults;
  } finally {
    dialogue.close();
    connection.close();
  }
}

describe.each(["2025-11-25", "2026-07-28"] as const)("a call of %s", (revision) => {
  test("is asked, answers, and takes its own greeting, call after call on one connection", async () => {
    expect(await called(revision, ASKING, 3)).toEqual([undefined, undefined, undefined]);
  });

  test("that nobody asked anything is no success", async () => {
    expect(await called(revision, "test_simple_text")).toEqual([WRONG_ANSWER]);
  });
});
