// Asks for what cannot be had, and prints what the error says: go run . ADDRESS [PROFILE [PROMPT]]
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	pb "github.com/ensemble-grpc/ensemble/gen/go/ensemble/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

func explain(err error) {
	st := status.Convert(err)
	fmt.Println("code:", st.Code())
	fmt.Println("message:", st.Message())
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Println("reason:", d.Reason, d.Metadata)
		case *errdetails.BadRequest:
			for _, violation := range d.FieldViolations {
				fmt.Println("field:", violation.Field, violation.Description)
			}
		case *errdetails.QuotaFailure:
			for _, violation := range d.Violations {
				fmt.Println("quota:", violation.Subject, violation.Description)
			}
		case *errdetails.RetryInfo:
			fmt.Println("retry in:", d.RetryDelay.AsDuration())
		}
	}
}

func main() {
	args := append(os.Args[1:], "", "", "")
	conn, err := grpc.NewClient(args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	response, err := pb.NewGatewayServiceClient(conn).Generate(ctx, &pb.GenerateRequest{Profile: args[1], Prompt: args[2]})
	if err != nil {
		explain(err)
		return
	}
	fmt.Println(response.Answer)
}
