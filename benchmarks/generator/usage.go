package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const ticksPerSecond = 100 // of /proc, on every Linux that Go runs on

// usage is CPU time in seconds.
type usage struct {
	Generator float64   `json:"generator"`
	Server    float64   `json:"server"`
	Cores     []float64 `json:"cores"` // used by anything, including stolen time
}

func (u usage) since(before usage) usage {
	cores := make([]float64, len(u.Cores))
	for i := range cores {
		cores[i] = u.Cores[i] - before.Cores[i]
	}
	return usage{u.Generator - before.Generator, u.Server - before.Server, cores}
}

func readUsage(watch string) (u usage, err error) {
	var own syscall.Rusage
	if err = syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return u, err
	}
	u.Generator = seconds(own.Utime) + seconds(own.Stime)
	for _, process := range strings.FieldsFunc(watch, func(r rune) bool { return r == ',' }) {
		stat, err := os.ReadFile("/proc/" + process + "/stat")
		if err != nil {
			return u, fmt.Errorf("the server has ended: %w", err)
		}
		// The name in parentheses may have spaces; utime and stime are the 12th and 13th field after it.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		u.Server += ticks(fields[11]) + ticks(fields[12])
	}
	u.Cores, err = cores()
	return u, err
}

// cores is the time each core was not idle.
func cores() ([]float64, error) {
	content, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, err
	}
	var busy []float64
	for line := range bytes.Lines(content) {
		fields := bytes.Fields(line)
		if !bytes.HasPrefix(line, []byte("cpu")) || len(fields[0]) == len("cpu") {
			continue
		}
		// user nice system idle iowait irq softirq steal
		total := 0.0
		for _, at := range []int{1, 2, 3, 6, 7, 8} {
			total += ticks(fields[at])
		}
		busy = append(busy, total)
	}
	return busy, nil
}

func ticks(field []byte) float64 {
	value, _ := strconv.ParseFloat(string(field), 64)
	return value / ticksPerSecond
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
