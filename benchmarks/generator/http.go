package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

var errHead = errors.New("expected an HTTP/1.1 answer with a content-length, or chunked")

// httpConnection is HTTP/1.1 with kept connections, and only the parts of it that the measured servers send,
// because net/http would cost more than the fastest of them.
type httpConnection struct {
	socket   net.Conn
	requests [][]byte
	timeout  time.Duration
	buffer   []byte
	have     int
}

func httpConnector(o options, bodies [][]byte) (connect, error) {
	dial, err := dialer(o)
	if err != nil {
		return nil, err
	}
	requests := make([][]byte, len(bodies))
	header := strings.ReplaceAll(o.header, "\n", "\r\n")
	for i, body := range bodies {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Length: %d\r\n\r\n",
			o.path, o.target, header, len(body))
		requests[i] = append([]byte(head), body...)
	}
	return func() (connection, error) {
		socket, err := dial()
		if err != nil {
			return nil, err
		}
		return &httpConnection{socket: socket, requests: requests, timeout: o.answerTimeout,
			buffer: make([]byte, 16<<10)}, nil
	}, nil
}

// dialer connects in plain text, or over TLS if there is an authority.
func dialer(o options) (func() (net.Conn, error), error) {
	plain := &net.Dialer{Timeout: o.answerTimeout}
	if o.authority == "" {
		return func() (net.Conn, error) { return plain.Dial("tcp", o.target) }, nil
	}
	pem, err := os.ReadFile(o.authority)
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: expected certificates in PEM, found none", o.authority)
	}
	config := &tls.Config{RootCAs: trusted}
	return func() (net.Conn, error) { return tls.DialWithDialer(plain, "tcp", o.target, config) }, nil
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

// receive reads one answer; the result points into the connection's buffer.
func (c *httpConnection) receive() (answer, error) {
	c.have = 0
	headEnd, err := c.find(0, "\r\n\r\n")
	if err != nil {
		return answer{}, err
	}
	head, start := c.buffer[:headEnd], headEnd+4
	status := httpStatus(head)
	if length := headerValue(head, "content-length:"); length != nil {
		size, err := strconv.Atoi(string(length))
		if err != nil {
			return answer{}, errHead
		}
		err = c.fill(start + size)
		return answer{status, c.buffer[start : start+size]}, err
	}
	if !bytes.EqualFold(headerValue(head, "transfer-encoding:"), []byte("chunked")) {
		return answer{}, errHead
	}
	body, err := c.chunks(start)
	return answer{status, body}, err
}

// chunks reads a chunked body that starts at `at` in the buffer, and closes the gaps between its chunks.
func (c *httpConnection) chunks(at int) ([]byte, error) {
	start, end := at, at
	for {
		lineEnd, err := c.find(at, "\r\n")
		if err != nil {
			return nil, err
		}
		size, err := strconv.ParseInt(string(c.buffer[at:lineEnd]), 16, 32)
		if err != nil {
			return nil, errHead
		}
		at = lineEnd + 2
		if err := c.fill(at + int(size) + 2); err != nil {
			return nil, err
		}
		end += copy(c.buffer[end:], c.buffer[at:at+int(size)])
		at += int(size) + 2
		if size == 0 {
			return c.buffer[start:end], nil
		}
	}
}

// find reads until the mark is in the buffer at or after `from`, and returns where it is.
func (c *httpConnection) find(from int, mark string) (int, error) {
	for {
		if at := bytes.Index(c.buffer[min(from, c.have):c.have], []byte(mark)); at >= 0 {
			return from + at, nil
		}
		if err := c.fill(c.have + 1); err != nil {
			return 0, err
		}
	}
}

// fill reads until the buffer has at least this many bytes.
func (c *httpConnection) fill(size int) error {
	if size <= c.have {
		return nil
	}
	if size > len(c.buffer) {
		c.buffer = append(c.buffer, make([]byte, size)...)
	}
	n, err := io.ReadAtLeast(c.socket, c.buffer[c.have:], size-c.have)
	c.have += n
	return err
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

// headerValue is nil if the head has no such line; the name ends with its colon.
func headerValue(head []byte, name string) []byte {
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			return bytes.TrimSpace(line[len(name):])
		}
	}
	return nil
}
