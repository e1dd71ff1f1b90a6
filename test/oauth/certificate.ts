/** A certificate for https on loopback, made for one test run. */
import type * as X509 from "@peculiar/x509";

/** PEM texts of a self-signed certificate for `localhost`, 127.0.0.1 and further names, and of its key. */
export async function selfSigned(names: readonly string[] = []): Promise<{ certificate: string; key: string }> {
  const x509 = await library();
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: "01",
    name: "CN=localhost",
    notBefore: new Date(Date.now() - 86_400_000),
    notAfter: new Date(Date.now() + 86_400_000),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.SubjectAlternativeNameExtension([
        { type: "dns", value: "localhost" },
        ...names.map((value) => ({ type: "dns" as const, value })),
        { type: "ip", value: "127.0.0.1" },
      ]),
    ],
  });
  const key = Buffer.from(await crypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  return {
    certificate: certificate.toString("pem"),
    key: `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----\n`,
  };
}

/** Its dependency injection asks for `reflect-metadata` at load and needs nothing of it for what is used here. */
async function library(): Promise<typeof X509> {
  const reflect = Reflect as unknown as Record<string, unknown>;
  reflect["getMetadata"] ??= () => undefined;
  reflect["getOwnMetadata"] ??= () => undefined;
  reflect["defineMetadata"] ??= () => {};
  reflect["metadata"] ??= () => () => {};
  return import("@peculiar/x509");
}
