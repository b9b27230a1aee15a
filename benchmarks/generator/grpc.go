package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
)

const modelInfer = "/inference.GRPCInferenceService/ModelInfer"

// raw passes messages as bytes, so that the generator spends no time on protobuf.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (raw) Unmarshal(data []byte, v any) error {
	target := v.(*[]byte)
	*target = append((*target)[:0], data...)
	return nil
}

func (raw) Name() string { return "proto" }

type grpcConnection struct {
	channel  *grpc.ClientConn
	requests [][]byte
	timeout  time.Duration
	buffer   []byte
}

func grpcConnector(o options, requests [][]byte) connect {
	return func() (connection, error) {
		channel, err := grpc.NewClient("passthrough:///"+o.target,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(64<<20)))
		if err != nil {
			return nil, err
		}
		return &grpcConnection{channel: channel, requests: requests, timeout: o.answerTimeout}, nil
	}
}

func (c *grpcConnection) close() { c.channel.Close() }

func (c *grpcConnection) exchange(request int) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	err := c.channel.Invoke(ctx, modelInfer, c.requests[request], &c.buffer)
	switch grpcstatus.Code(err) {
	case codes.OK:
		return answer{answered, c.buffer}, nil
	case codes.Unavailable:
		return answer{refused, []byte(err.Error())}, nil
	}
	return answer{failed, fmt.Append(nil, err)}, nil
}
