# One kernel, named by KERNEL.
# sim: the test bench on this CPU (needs g++ and ap_int.h: pip install --no-deps hls4ml)
# synth: the kernel for the card (needs Vitis)
AP_TYPES ?= $(shell python3 -c "import importlib.util as u; print(u.find_spec('hls4ml').submodule_search_locations[0])")/templates/vivado/ap_types
# -w: the vendor's header is full of warnings.
CXXFLAGS ?= -O2 -w

.PHONY: sim synth clean
sim: $(KERNEL)_tb
	./$(KERNEL)_tb

$(KERNEL)_tb: $(KERNEL).cpp $(KERNEL).h $(KERNEL)_tb.cpp ../sim/columns.h ../sim/hls_stream.h
	$(CXX) -std=c++17 $(CXXFLAGS) -I../sim -I $(AP_TYPES) -o $@ $(KERNEL).cpp $(KERNEL)_tb.cpp

synth:
	v++ -c --mode hls --config hls_config.cfg --work_dir build

clean:
	rm -rf $(KERNEL)_tb build
