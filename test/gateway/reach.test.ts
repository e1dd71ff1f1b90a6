/** What the consent page says a client would reach: the roles of the person, over what the servers really have. */
import { expect, test } from "vitest";
import { world } from "../e2e/world.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { register } from "../oauth/support.ts";

const WEB = "https://shop.example/cb";

test("a person is shown the tools of their roles and no others, and nothing to allow without a role", async () => {
  await using one = await world({
    servers: { echo: { command: fixtureCommand("echo-stdio", []) } },
    roles: { reader: { may: ["echo", "count"], deny: ["count"] } },
    assign: [
      { role: "reader", user: "nobody yet" },
      { role: "reader", when: "user.claims.name == 'olive'" },
    ],
  });
  const client = String((await register({ base: one.origin } as never, { redirect_uris: [WEB] })).body["client_id"]);
  const ask = new URLSearchParams({
    response_type: "code",
    client_id: client,
    redirect_uri: WEB,
    code_challenge: "c".repeat(43),
    code_challenge_method: "S256",
  });
  await one.browser.go(`${one.origin}/oauth/authorize?${ask}`);
  expect(one.browser.last.text).toContain("What that means here: 1 tool of 1 server");
  expect(one.browser.last.text).toMatch(/What your role reader permits today/);
  expect(one.browser.last.text).toMatch(/<code>echo<\/code> <span class="tag">(reads|changes)<\/span>/);
  expect(one.browser.last.text).not.toContain("<code>count</code>");

  await using other = await world({
    servers: { echo: { command: fixtureCommand("echo-stdio", []) } },
    roles: { reader: { may: ["*"] } },
    assign: [{ role: "reader", group: "somebody-else" }],
  });
  const second = String((await register({ base: other.origin } as never, { redirect_uris: [WEB] })).body["client_id"]);
  ask.set("client_id", second);
  await other.browser.go(`${other.origin}/oauth/authorize?${ask}`);
  expect(other.browser.last.text).toContain("could do nothing for you");
});
