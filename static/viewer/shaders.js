// One triangle over everything; the scissor cuts out the pane. All the work is in the fragment shader.

export const VERTEX = `#version 300 es
void main() {
  gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0, 1);
}`;

export const FRAGMENT = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
precision highp sampler2DArray;

uniform usampler2D image;
uniform sampler2DArray maps;
uniform sampler2D palette;
uniform float screenHeight;   // device pixels
uniform vec4 toSource;        // ax, ay, bx, by: source = device pixel * a + b
uniform vec2 sourceSize;
uniform float texel;          // source pixels a texel of the level
uniform int level;
uniform vec2 window;          // the value that is black, and the width up to white
uniform bool inverted;
uniform int mode;             // 1 heat, 2 contour, 3 both; 0 none
uniform vec4 toCell;          // cell = source * a + b
uniform vec2 cells;           // columns, rows
uniform int finding;
uniform float ceiling;
uniform float opacity;
uniform float threshold;
uniform float stroke;         // of a contour, device pixels
out vec4 colour;

float grey(vec2 source) {
  vec2 at = source / texel - 0.5;
  ivec2 most = textureSize(image, level) - 1;
  ivec2 base = ivec2(floor(at));
  vec2 part = at - vec2(base);
  ivec2 a = clamp(base, ivec2(0), most);
  ivec2 b = clamp(base + 1, ivec2(0), most);
  vec4 v = vec4(texelFetch(image, a, level).r, texelFetch(image, ivec2(b.x, a.y), level).r,
                texelFetch(image, ivec2(a.x, b.y), level).r, texelFetch(image, b, level).r);
  vec2 rows = mix(v.xz, v.yw, part.x);
  float shown = clamp((mix(rows.x, rows.y, part.y) - window.x) / window.y, 0.0, 1.0);
  return inverted ? 1.0 - shown : shown;
}

float heat(vec2 at) {
  vec2 inside = clamp(at, vec2(0), cells - 1.0);
  ivec2 a = ivec2(floor(inside));
  ivec2 b = min(a + 1, ivec2(cells) - 1);
  vec2 part = inside - vec2(a);
  vec4 v = vec4(texelFetch(maps, ivec3(a, finding), 0).r, texelFetch(maps, ivec3(b.x, a.y, finding), 0).r,
                texelFetch(maps, ivec3(a.x, b.y, finding), 0).r, texelFetch(maps, ivec3(b, finding), 0).r);
  vec2 rows = mix(v.xz, v.yw, part.x);
  return clamp(mix(rows.x, rows.y, part.y) / ceiling, 0.0, 1.0);
}

vec3 tint(float share) {
  return texelFetch(palette, ivec2(int(share * 255.0 + 0.5), 0), 0).rgb;
}

void contour(float share, float slope, float at, inout vec3 mixed) {
  float away = abs(share - at) / slope;
  mixed = mix(mixed, vec3(0), 0.65 * (1.0 - smoothstep(stroke, stroke * 2.0, away)));
  mixed = mix(mixed, tint(0.45 + 0.55 * at), 1.0 - smoothstep(stroke * 0.5, stroke, away));
}

void main() {
  vec2 source = vec2(gl_FragCoord.x, screenHeight - gl_FragCoord.y) * toSource.xy + toSource.zw;
  vec2 at = source * toCell.xy + toCell.zw;
  float share = mode > 0 && ceiling > 0.0 ? heat(at) : 0.0;
  float slope = max(fwidth(share), 1e-6); // before any branch: derivatives need their neighbours
  if (any(lessThan(source, vec2(0))) || any(greaterThanEqual(source, sourceSize))) {
    colour = vec4(0, 0, 0, 1);
    return;
  }
  vec3 mixed = vec3(grey(source));
  bool seen = all(greaterThanEqual(at, vec2(-0.5))) && all(lessThanEqual(at, cells - 0.5));
  if (mode > 0 && ceiling > 0.0 && seen) {
    if ((mode & 1) == 1 && share >= threshold) mixed = mix(mixed, tint(share), opacity * share);
    if ((mode & 2) == 2) {
      for (int i = 1; i < 4; i++) {
        float line = float(i) * 0.25;
        if (line > threshold) contour(share, slope, line, mixed);
      }
      if (threshold > 0.0) contour(share, slope, threshold, mixed);
    }
  }
  colour = vec4(mixed, 1);
}`;
