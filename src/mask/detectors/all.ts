/**
 * Every detector, by hand. Where two find the same place the one that stands higher names it: what is told by its own form comes
 * before what is told by the words around it.
 */
import type { Detector } from "../detector.ts";
import { apiKey } from "./api-key.ts";
import { awsAccessKeyId } from "./aws-access-key-id.ts";
import { awsSecretKey } from "./aws-secret-key.ts";
import { bearerToken } from "./bearer-token.ts";
import { creditCard } from "./credit-card.ts";
import { dsnPassword } from "./dsn-password.ts";
import { email } from "./email.ts";
import { iban } from "./iban.ts";
import { ipAddress } from "./ip-address.ts";
import { jwt } from "./jwt.ts";
import { password } from "./password.ts";
import { phone } from "./phone.ts";
import { privateKey } from "./private-key.ts";
import { ukNhsNumber } from "./uk-nhs-number.ts";
import { ukNino } from "./uk-nino.ts";
import { usSsn } from "./us-ssn.ts";

export const DETECTORS = [
  privateKey,
  jwt,
  awsAccessKeyId,
  apiKey,
  awsSecretKey,
  dsnPassword,
  bearerToken,
  password,
  iban,
  creditCard,
  usSsn,
  ukNhsNumber,
  ukNino,
  email,
  ipAddress,
  phone,
] as const satisfies readonly Detector[];
