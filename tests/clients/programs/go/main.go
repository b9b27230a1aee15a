// Command ask asks a transformer for a decision, with the client that is generated from open_inference.proto:
// ask ADDRESS < record.json
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"example.org/ask/inference"
)

func main() {
	var record map[string]float64
	check(json.NewDecoder(os.Stdin).Decode(&record))
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	defer connection.Close()
	client := inference.NewGRPCInferenceServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	index, err := client.RepositoryIndex(ctx, &inference.RepositoryIndexRequest{Ready: true})
	check(err)
	request := &inference.ModelInferRequest{ModelName: index.Models[0].Name}
	for name, value := range record {
		request.Inputs = append(request.Inputs, &inference.ModelInferRequest_InferInputTensor{
			Name:     name,
			Datatype: "FP64",
			Shape:    []int64{1},
			Contents: &inference.InferTensorContents{Fp64Contents: []float64{value}},
		})
	}
	request.Outputs = []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "decision"}}
	answer, err := client.ModelInfer(ctx, request)
	check(err)
	fmt.Printf("{\"decision\": %q}\n", answer.Outputs[0].Contents.BytesContents[0])
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
