/** What the authorization server does not do is neither advertised nor answered. */
import { expect, test } from "vitest";
import { authorizeUrl, Browser, documentHost, running, setUp, token } from "./support.ts";

test("the device flow, rich requests and request objects are neither advertised nor there", async () => {
  await using host = await documentHost();
  await using live = await running({ clients: { metadataDocuments: host.settings } });
  await setUp(live);
  const metadata = (await (await fetch(`${live.base}/.well-known/oauth-authorization-server`)).json()) as object;
  const names = Object.entries(metadata).filter(([, value]) => value !== false);
  const unwanted =
    /device|authorization_details|request_object|request_parameter|request_uri_parameter|backchannel|mtls/;
  expect(names.map(([name]) => name).filter((name) => unwanted.test(name))).toEqual([]);

  const client = host.publish("/client.json");
  const grant = { grant_type: "urn:ietf:params:oauth:grant-type:device_code", device_code: "x", client_id: client };
  expect((await token(live, grant)).body["error"]).toBe("unsupported_grant_type");
  for (const path of ["/oauth/device", "/oauth/device/auth", "/oauth/ciba"])
    expect((await fetch(`${live.base}${path}`, { method: "POST" })).status, path).toBe(404);

  const browser = new Browser(live.origin);
  const end = await browser.go(authorizeUrl(live, { client, more: { request: "e30.e30." } }));
  const said = end?.searchParams.get("error") ?? browser.last.text;
  expect(said).toMatch(/request_not_supported/);
});
