/*
 * The code of inlined.elf, which tests of source lines read. Built in a folder `out` beside this file,
 * with -g moved to a file of its own (objcopy --only-keep-debug):
 * gcc -O2 -g -gdwarf-5 -gz=zlib -ffreestanding -nostdlib -static -no-pie -Wl,--build-id=none \
 *     -Wl,-Ttext=0xffffffff81000000 -fdebug-prefix-map=$PWD=/source/out -o ../inlined.elf ../inlined.c
 */
volatile int cell;

static inline void innermost(void)
{
	cell = 1;
}

static inline void inner(void)
{
	innermost();
	cell = 2;
}

__attribute__((noinline)) static void called(int value)
{
	cell = value;
}

void _start(void)
{
	inner();
	called(3);
	cell = 4;
}
