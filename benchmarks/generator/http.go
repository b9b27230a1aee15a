package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

var errHead = errors.New("expected an HTTP/1.1 answer with a content-length")

// httpConnection is HTTP/1.1 with kept connections, as little of it as the servers measured here send:
// net/http would cost more than the fastest of them.
type httpConnection struct {
	socket   net.Conn
	requests [][]byte
	timeout  time.Duration
	buffer   []byte
}

func httpConnector(o options, bodies [][]byte) connect {
	requests := make([][]byte, len(bodies))
	header := strings.ReplaceAll(o.header, "\n", "\r\n")
	for i, body := range bodies {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Length: %d\r\n\r\n",
			o.path, o.target, header, len(body))
		requests[i] = append([]byte(head), body...)
	}
	return func() (connection, error) {
		socket, err := net.DialTimeout("tcp", o.target, o.answerTimeout)
		if err != nil {
			return nil, err
		}
		return &httpConnection{socket, requests, o.answerTimeout, make([]byte, 16<<10)}, nil
	}
}

func (c *httpConnection) close() { c.socket.Close() }

func (c *httpConnection) exchange(request int) (answer, error) {
	if err := c.socket.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return answer{}, err
	}
	if _, err := c.socket.Write(c.requests[request]); err != nil {
		return answer{}, err
	}
	return c.receive()
}

func (c *httpConnection) receive() (answer, error) {
	have, headEnd := 0, -1
	for headEnd < 0 {
		if have == len(c.buffer) {
			c.buffer = append(c.buffer, make([]byte, have)...)
		}
		n, err := c.socket.Read(c.buffer[have:])
		if err != nil {
			return answer{}, err
		}
		have += n
		headEnd = bytes.Index(c.buffer[:have], []byte("\r\n\r\n"))
	}
	head := c.buffer[:headEnd]
	length, err := contentLength(head)
	if err != nil {
		return answer{}, err
	}
	end := headEnd + 4 + length
	if end > len(c.buffer) {
		c.buffer = append(c.buffer[:have], make([]byte, end-have)...)
	}
	if have < end {
		if _, err := io.ReadFull(c.socket, c.buffer[have:end]); err != nil {
			return answer{}, err
		}
	}
	return answer{httpStatus(head), c.buffer[headEnd+4 : end]}, nil
}

func httpStatus(head []byte) status {
	switch {
	case bytes.HasPrefix(head, []byte("HTTP/1.1 200")):
		return answered
	case bytes.HasPrefix(head, []byte("HTTP/1.1 503")):
		return refused
	}
	return failed
}

func contentLength(head []byte) (int, error) {
	const name = "content-length:"
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, []byte("\r\n"))
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			return strconv.Atoi(string(bytes.TrimSpace(line[len(name):])))
		}
		head = rest
	}
	return 0, errHead
}
