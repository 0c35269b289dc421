// Asks for what cannot be had, and prints what the error says: npx tsx errors.ts ADDRESS [PROFILE [PROMPT]]
import { credentials, loadPackageDefinition, type ServiceError, status } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { GoogleError } from "google-gax";

// What google-gax makes of google.rpc.BadRequest, QuotaFailure and RetryInfo.
interface Detail {
  fieldViolations?: { field: string; description: string }[];
  violations?: { subject: string; description: string }[];
  retryDelay?: { seconds: number; nanos: number };
}

function explain(error: ServiceError): void {
  console.log("code:", status[error.code]);
  console.log("message:", error.details);
  const told = GoogleError.parseGRPCStatusDetails(Object.assign(new GoogleError(error.message), error));
  if (told.reason) console.log("reason:", told.reason, told.errorInfoMetadata);
  for (const { fieldViolations, violations, retryDelay } of (told.statusDetails ?? []) as Detail[]) {
    for (const { field, description } of fieldViolations ?? []) console.log("field:", field, description);
    for (const { subject, description } of violations ?? []) console.log("quota:", subject, description);
    if (retryDelay) console.log("retry in:", Number(retryDelay.seconds) + retryDelay.nanos / 1e9, "s");
  }
}

const [address, profile = "", prompt = ""] = process.argv.slice(2);
const { ensemble } = loadPackageDefinition(loadSync("ensemble/v1/gateway_service.proto", { includeDirs: ["protos"], keepCase: true })) as any;
const gateway = new ensemble.v1.GatewayService(address, credentials.createInsecure());
gateway.Generate({ profile, prompt }, { deadline: Date.now() + 30_000 }, (error: ServiceError | null, response: { answer: string }) => {
  if (error) explain(error);
  else console.log(response.answer);
  gateway.close();
});
