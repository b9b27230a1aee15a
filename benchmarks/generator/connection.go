package main

import "fmt"

// A connection has at most one request under way.
type connection interface {
	// exchange sends a request of the pool and returns the answer, whose bytes are valid until the next exchange.
	exchange(request int) (answer, error)
	close()
}

type answer struct {
	status status
	body   []byte
}

type status int

const (
	answered status = iota // HTTP 200, gRPC OK
	refused                // HTTP 503, gRPC UNAVAILABLE: the server has too much to do
	failed                 // anything else
)

type connect func() (connection, error)

func connector(o options, requests [][]byte) (connect, error) {
	switch o.protocol {
	case "http":
		return httpConnector(o, requests)
	case "grpc":
		return grpcConnector(o, requests), nil
	}
	return nil, fmt.Errorf("protocol: expected http or grpc, got %q", o.protocol)
}

// collect sends every request once, in order, and returns copies of the answers.
func collect(connect connect, requests int) ([][]byte, error) {
	c, err := connect()
	if err != nil {
		return nil, err
	}
	defer c.close()
	answers := make([][]byte, requests)
	for i := range answers {
		got, err := c.exchange(i)
		if err != nil {
			return nil, fmt.Errorf("request %d: %w", i, err)
		}
		if got.status != answered {
			return nil, fmt.Errorf("request %d: refused or failed: %.300s", i, got.body)
		}
		answers[i] = append([]byte{}, got.body...)
	}
	return answers, nil
}
