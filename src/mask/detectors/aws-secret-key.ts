/** Secret access keys of AWS: forty characters of base64 after their name. */
import { isPlaceholder, looksRandom } from "../credential-names.ts";
import type { Detector, Found, NamedValue } from "../detector.ts";

export const awsSecretKey: Detector = {
  type: "aws_secret_key",
  about: "secret",
  named,
  hits: [
    ["aws_secret_access_key = oj5K2V+MS0E8ja0poOVytfyx01DHJUxR5c+20kH7", "oj5K2V+MS0E8ja0poOVytfyx01DHJUxR5c+20kH7"],
    ['"awsSecretAccessKey":"cJ3KnQuu8PDgYStKddp/jkK2SJPnJ0n8OoGgywH0"', "cJ3KnQuu8PDgYStKddp/jkK2SJPnJ0n8OoGgywH0"],
    [
      "export AWS_SECRET_ACCESS_KEY=rEc3LmKDtb19dLXTqmOqE5KTRSGNRjPspidcdwFw",
      "rEc3LmKDtb19dLXTqmOqE5KTRSGNRjPspidcdwFw",
    ],
    ["AWS secret access key: Yvy4msDBX41XETHqKb6+57BEx348fJ1JX3IsXnTL", "Yvy4msDBX41XETHqKb6+57BEx348fJ1JX3IsXnTL"],
    [
      "| AWS_SECRET_ACCESS_KEY | d4PdbzwCy/WiH5tpRRi5AuYieeemOx8NYc0tarZs |",
      "d4PdbzwCy/WiH5tpRRi5AuYieeemOx8NYc0tarZs",
    ],
  ],
  misses: [
    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_SECRET_ACCESS_KEY=${SECRET}",
    "aws_secret_access_key = short",
  ],
};

function named(text: string, value: NamedValue, found: Found): void {
  if (value.kind !== "aws") return;
  const word = text.slice(value.start, value.end);
  if (looksRandom(word, 30, 4) && !isPlaceholder(word)) found.add(value.start, value.end);
}
