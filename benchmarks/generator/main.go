// Command generator drives an inference server from one core and compares every answer with the expected bytes.
//
// Closed loop (each connection sends its next request when it has its answer) or, with -rate, open loop (requests
// start at random times whatever the server does). The result is one JSON object on standard output.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"os"
	"time"
)

type options struct {
	protocol, target, path, header  string
	authority                       string
	requests, answers, collect      string
	connections                     int
	rate                            float64
	warmUp, duration, answerTimeout time.Duration
	watch                           string
}

func main() {
	log.SetFlags(0)
	o := parse()
	requests, err := readPool(o.requests)
	check(err)
	connect, err := connector(o, requests)
	check(err)
	if o.collect != "" {
		answers, err := collect(connect, len(requests))
		check(err)
		check(writePool(o.collect, answers))
		return
	}
	answers, err := readPool(o.answers)
	check(err)
	result, err := run(o, connect, len(requests), answers)
	check(err)
	check(json.NewEncoder(os.Stdout).Encode(result))
}

func parse() (o options) {
	flag.StringVar(&o.protocol, "protocol", "http", "http or grpc")
	flag.StringVar(&o.target, "target", "", "host:port of the server")
	flag.StringVar(&o.path, "path", "/", "path of HTTP requests")
	flag.StringVar(&o.header, "header", "Content-Type: application/json", "headers of HTTP requests, a line each")
	flag.StringVar(&o.authority, "authority", "", "PEM file that HTTP servers' certificates are verified by; empty: no TLS")
	flag.StringVar(&o.requests, "requests", "", "pool of request bodies or messages")
	flag.StringVar(&o.answers, "answers", "", "pool of expected answers: one for each request, or one for all")
	flag.StringVar(&o.collect, "collect", "", "send each request once, write the answers to this file, and end")
	flag.IntVar(&o.connections, "connections", 1, "connections, each with one request under way")
	flag.Float64Var(&o.rate, "rate", 0, "requests a second of an open loop; 0 for a closed loop")
	flag.DurationVar(&o.warmUp, "warm-up", time.Second, "time before measuring starts")
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "time measured")
	flag.DurationVar(&o.answerTimeout, "timeout", 30*time.Second, "longest wait for an answer")
	flag.StringVar(&o.watch, "watch", "", "process ids of the server, with commas, whose CPU time is told")
	flag.Parse()
	return o
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
