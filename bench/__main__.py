"""`make bench`: every quick benchmark, ratios side by side."""

from bench import detector, saliency, serving, training

if __name__ == "__main__":
    saliency.main([])
    print()
    training.main([])
    print()
    serving.main([])
    print()
    detector.small()
