// Asks for what cannot be had, and prints what the error says: java Errors ADDRESS [PROFILE [PROMPT]]
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.util.Durations;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RetryInfo;
import io.ensemble.v1.GatewayServiceGrpc;
import io.ensemble.v1.GenerateRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.concurrent.TimeUnit;

public final class Errors {
    static void explain(StatusRuntimeException error) throws InvalidProtocolBufferException {
        System.out.println("code: " + error.getStatus().getCode());
        System.out.println("message: " + error.getStatus().getDescription());
        // Without details, code and description are all that there is.
        for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
            if (detail.is(ErrorInfo.class)) {
                var info = detail.unpack(ErrorInfo.class);
                System.out.println("reason: " + info.getReason() + " " + info.getMetadataMap());
            } else if (detail.is(BadRequest.class)) {
                for (var violation : detail.unpack(BadRequest.class).getFieldViolationsList()) {
                    System.out.println("field: " + violation.getField() + " " + violation.getDescription());
                }
            } else if (detail.is(QuotaFailure.class)) {
                for (var violation : detail.unpack(QuotaFailure.class).getViolationsList()) {
                    System.out.println("quota: " + violation.getSubject() + " " + violation.getDescription());
                }
            } else if (detail.is(RetryInfo.class)) {
                System.out.println("retry in: " + Durations.toString(detail.unpack(RetryInfo.class).getRetryDelay()));
            }
        }
    }

    public static void main(String[] args) throws Exception {
        var channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
        try {
            var request = GenerateRequest.newBuilder().setProfile(args.length > 1 ? args[1] : "").setPrompt(args.length > 2 ? args[2] : "").build();
            var gateway = GatewayServiceGrpc.newBlockingStub(channel).withDeadlineAfter(30, TimeUnit.SECONDS);
            System.out.println(gateway.generate(request).getAnswer());
        } catch (StatusRuntimeException error) {
            explain(error);
        } finally {
            channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        }
    }
}
